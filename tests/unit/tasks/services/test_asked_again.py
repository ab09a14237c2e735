"""Requests that the engine does not retry: what may pass is tried again, so often; what cannot is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lake.errors import ArchiveError
from lake.settings import load_settings
from tasks.services.retry import with_retries

SETTINGS = load_settings(retries=2, retry_delay_s=0.0)


def failing(*errors: Exception) -> tuple[list[int], Callable[[], str]]:
    """Return the times that it was asked, and what is asked: it fails in these ways, then answers."""
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        if len(asked) <= len(errors):
            raise errors[len(asked) - 1]
        return "answer"

    return asked, ask


def refused(*, transient: bool) -> ArchiveError:
    return ArchiveError("refused", archive="gaia", endpoint="here", transient=transient)


def test_what_may_pass_is_tried_again() -> None:
    asked, ask = failing(refused(transient=True), refused(transient=True))
    assert with_retries(ask, SETTINGS, sleep=lambda _: None) == "answer"
    assert len(asked) == 3


def test_it_is_tried_so_often_and_no_oftener() -> None:
    asked, ask = failing(*[refused(transient=True)] * 4)
    with pytest.raises(ArchiveError, match="refused"):
        with_retries(ask, SETTINGS, sleep=lambda _: None)
    assert len(asked) == 3


@pytest.mark.parametrize("error", [refused(transient=False), ValueError("no number")], ids=["refusal", "fault"])
def test_what_cannot_pass_is_asked_once(error: Exception) -> None:
    asked, ask = failing(error, error)
    with pytest.raises(type(error)):
        with_retries(ask, SETTINGS, sleep=lambda _: None)
    assert len(asked) == 1
