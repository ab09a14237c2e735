"""Commands that run flows: what they say before they begin."""

from __future__ import annotations

import re

import pytest
from helpers.granules import register

from flows.cli import existing, hst
from lake.store.catalog import Catalog


def test_a_lake_without_targets_is_told(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(catalog.storage.root)
    assert existing(url, asks_for_targets=True) == url
    assert "targets add" in capsys.readouterr().out
    existing(url)  # of a survey, which has its files
    register(catalog, range(1))
    existing(url, asks_for_targets=True)
    assert capsys.readouterr().out == ""


def test_the_commands_below_hst_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    hst(["--help"], result_action="return_value")
    listed = capsys.readouterr().out
    assert all(re.search(rf"\b{name} +\w+ \w+", listed) for name in ("pages", "reset"))
