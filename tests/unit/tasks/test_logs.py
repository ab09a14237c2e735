"""Logs of runs have neither secrets nor what acts on a terminal."""

from __future__ import annotations

import logging

import pytest

import tasks.logs
from lake.errors import ArchiveError


@pytest.mark.parametrize("name", ["prefect.flow_runs", "prefect.task_runs"])
def test_what_runs_say_is_clean(name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.logs.clean_logs()  # is done already, and nothing more by doing it again
    log = logging.getLogger(name)
    assert sum(isinstance(one, tasks.logs.Clean) for one in log.filters) == 1
    monkeypatch.setattr(log, "handlers", [])  # Prefect's own wants a run
    url = "http://u:hunter2@h/x?token=hunter2"
    with caplog.at_level(logging.INFO, name):
        log.info("asking %s of %r, 100 %%", url, {"secret": "hunter2"})
        log.warning("trying again: \x1b[2J\u202e", extra={"flow_run_id": "1"})
        try:
            try:
                raise OSError(f"no answer from {url}")
            except OSError as cause:
                raise ArchiveError("gone", archive="ztf", endpoint=url) from cause
        except ArchiveError as error:
            log.exception("Encountered exception during execution: %r", error)
    said = [caplog.handler.format(record) for record in caplog.records]
    assert len(said) == 3
    assert "100 %" in said[0]
    assert r"\x1b[2J\u202e" in said[1]
    assert caplog.records[1].flow_run_id == "1"
    assert said[2].count("http://***@h/x?token=***") >= 2, "the cause, too"
    assert "\nTraceback" in said[2]
    assert "hunter2" not in "".join(said)
