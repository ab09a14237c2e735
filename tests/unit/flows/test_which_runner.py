"""Who runs a command: Prefect where a server of it is configured, the command itself where none is."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli import by_prefect
from lake.errors import ConfigurationError
from lake.settings import load_settings
from tasks.pull.run import width_of
from tasks.pull.runners import LocalRunner


@pytest.mark.parametrize("chosen", [None, True, False])
@pytest.mark.parametrize("api", [None, "http://127.0.0.1:9/api"])
def test_prefect_runs_what_it_is_configured_for(chosen: bool | None, api: str | None) -> None:
    with temporary_settings({PREFECT_API_URL: api}):
        assert by_prefect(chosen) is (api is not None if chosen is None else chosen)


def test_dask_is_prefects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTLAKE_RUNNER", "dask")
    with temporary_settings({PREFECT_API_URL: None}):
        assert by_prefect(None)
    with pytest.raises(ConfigurationError, match="--prefect"):
        LocalRunner(load_settings(), 4)


@pytest.mark.parametrize(
    ("runner", "at_once", "width"), [("threads", None, 12), ("threads", 2, 8), ("threads", 9, 12), ("processes", 9, 4)]
)
def test_threads_are_as_many_as_wait_processes_as_many_as_there_are_cores(
    runner: str, at_once: int | None, width: int
) -> None:
    assert width_of(load_settings(runner=runner, workers=4, sources_at_once=at_once), {"a", "b", "c"}) == width
