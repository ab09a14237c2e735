"""What a person reads of a run: the table, what is missing and why, a plot, and lines of the log."""

from __future__ import annotations

import base64
import logging
from typing import Any

import httpx
import pytest
from helpers.granules import committed, register, staged

import flows.artifacts
import flows.report
from flows.artifacts import credits_of, log_errors, losses_table, names_of, publish_light_curves
from flows.report import Watch, missing, publish
from lake.commit.commit import Receipt, commit
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.analysis.figures.pictures import longest_light_curves
from tasks.pull.report import MOST_LOSSES, PullReport, log_receipt
from tasks.sources.registry import REGISTRY

ZTF = REGISTRY["ztf"]


def receipt(n: int, status: str = "done", **more: Any) -> Receipt:
    values = {"n_targets": 10, "n_sources": 0, "n_rows": 0, "bytes": 0, "replaced": 0, "kept": 0, **more}
    return Receipt(f"ztf-{n}", status, **values)


def lost(n: int, reason: str, status: str = "failed") -> Receipt:
    return receipt(n, status, reason=reason, retries=3)


def of(*receipts: Receipt) -> PullReport:
    return PullReport("ztf", "DR1").plus(0, [(None, one) for one in receipts])


def test_the_table_has_an_answer_for_every_target() -> None:
    report = of(
        receipt(1, n_found=7, n_rows=50, n_sources=8, bytes=2_500_000, requests=4, retries=1, peak_rss_mb=120.0),
        receipt(2, "empty", requests=2, peak_rss_mb=90.4),
        receipt(3, "split"),
        lost(4, "HTTP 503"),
    )
    row = report.row()
    assert list(row)[:6] == ["archive", "release", "asked", "found", "empty", "failed"]
    assert (row["asked"], row["found"], row["empty"], row["failed"]) == (30, 7, 13, 10)
    assert (row["granules"], row["granules lost"], row["rows"], row["MB of Parquet"]) == (4, 1, 50, 2.5)
    assert (row["tried again"], row["requests"], row["peak memory, MB"]) == (4, 6, 120)
    assert report.largest.granule == "ztf-1"
    nothing = of(receipt(2, "empty"))
    assert (nothing.largest, nothing.row()["requests"], nothing.row()["peak memory, MB"]) == (None, None, None)


def test_losses_are_named_as_long_as_they_can_be_read() -> None:
    report = of(*[lost(n, f"reason {n}: a | b <script>\n{'x' * 9000}") for n in range(500)])
    assert len(report.losses) == MOST_LOSSES
    lines = losses_table(report.losses, report.granules_lost, {"ztf-0": ["T|1", "T2", "T3"], "ztf-1": ["T4"]})
    assert len(lines) == 2 + MOST_LOSSES + 2
    assert lines[2].startswith("| `ztf-0` | failed | T\\|1, T2, T3 and 7 more | 3 | reason 0: a \\| b \\<script\\> xxx")
    assert lines[3].startswith("| `ztf-1` | failed | T4 and 9 more | 3 |")
    assert lines[4].startswith("| `ztf-2` | failed | 10 | 3 |")
    assert lines[-1] == f"and {500 - MOST_LOSSES} more granules."
    assert len("\n".join(lines)) < 12_000, "it is in Prefect's database, for each run"


def test_what_is_missing_of_a_pull(catalog: Catalog, lake: Lake) -> None:
    register(catalog, range(6))
    whole = of(committed(catalog, range(3), "g0"))
    assert missing(whole, lake, ZTF) == (
        "# What is missing of ztf DR1\n\nNothing is missing: 3 targets were asked for, and all have their answer."
    )
    manifest = staged(catalog, [], "g1", targets=[3, 4], status="failed", attempt_status="failed")
    failed = whole.plus(2, [(None, commit(catalog, manifest.with_details(reason="ztf: HTTP 503", retries=3)))])
    told = missing(failed, lake, ZTF)
    assert "2 of 5 targets failed, 0 were rejected, in 1 of 2 granules." in told
    assert "| `g1` | failed | T3, T4 | 3 | ztf: HTTP 503 |" in told.replace("T4, T3", "T3, T4")
    assert "`lightlake pull ztf` asks again for what failed" in told
    assert "\nlightlake status ztf\n" in told
    query = told.partition('lightlake sql "')[2].partition('"')[0]
    (row,) = lake.sql(query).to_pylist()
    assert (row["granule"], row["reason"]) == ("g1", "ztf: HTTP 503")
    # A run that had nothing to ask says so of itself, and of those before it.
    later = missing(PullReport("ztf", "DR1"), lake, ZTF)
    assert "Nothing is missing: 0 targets were asked for" in later
    assert "2 targets have had no answer since runs before this one." in later


def test_what_is_missing_of_a_survey(catalog: Catalog, lake: Lake) -> None:
    report = PullReport("virac", "DR1", "tiles", known=4, rejected_before=1)
    told = missing(report, lake, ZTF)
    assert "Nothing is missing: 0 tiles were asked for" in told
    assert "\n\n1 tile was rejected in runs before" in told
    some = [("n1.hdf5", receipt(1, n_targets=0)), ("n2.hdf5", lost(2, "no HDF5", "rejected"))]
    report = report.plus(3, some)
    assert names_of(lake, "ztf", "DR1", report.losses) == {}
    told = missing(report, lake, ZTF)
    assert "0 of 2 tiles failed, 1 was rejected, in 1 of 2 granules." in told
    assert "| n2.hdf5 (`ztf-2`) | rejected | 10 | 3 | no HDF5 |" in told
    assert "lightlake virac ... --retry-failed" in told
    assert (report.row()["tried again"], report.row()["elsewhere"]) == (3, 1)


def test_terms_have_links() -> None:
    told = credits_of(ZTF)
    assert ZTF.licence in told
    assert ZTF.acknowledgement in told
    assert f"https://ui.adsabs.harvard.edu/abs/{ZTF.bibcode}" in told


def test_the_plot_is_of_what_the_granule_brought(catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, str] = {}

    def made_one(text: str, key: str, description: str) -> None:
        assert description
        made[key] = text

    monkeypatch.setattr(flows.artifacts, "create_markdown_artifact", made_one)
    register(catalog, range(6))
    committed(catalog, range(5), "g0")
    rows = longest_light_curves(lake, "ztf", "DR1", "g0")
    assert len(set(rows["source_id"].to_pylist())) == 3
    assert rows.num_rows == 3 * 6
    publish_light_curves(lake, ZTF.at_release("DR1"), "g0")
    (text,) = made.values()
    assert list(made) == ["plot-ztf"]
    png = base64.b64decode(text.partition("base64,")[2].partition(")")[0])
    assert png.startswith(b"\x89PNG")
    assert len(text) < 60_000, "it is in Prefect's database, for each run"
    # The same again brings nothing new: there is nothing to be shown.
    made.clear()
    committed(catalog, range(5), "g1")
    publish_light_curves(lake, ZTF.at_release("DR1"), "g1")
    assert made == {}


def test_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    caplog.set_level(logging.DEBUG, "test")
    log_receipt(log, receipt(1, n_found=7, n_rows=50, n_sources=8, seconds=1.23, retries=2))
    log_receipt(log, receipt(2, n_targets=0, n_rows=5), "n2.hdf5", level=logging.DEBUG)
    log_receipt(log, lost(3, "HTTP 503"), level=logging.DEBUG)
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("INFO", "ztf-1: done, 10 targets, 7 found, 8 sources, 50 rows, 1.2 s, tried again 2 times"),
        ("DEBUG", "n2.hdf5 (ztf-2): done, 0 sources, 5 rows, 0.0 s"),
        ("WARNING", "ztf-3: failed, 10 targets, 0 found, 0 sources, 0 rows, 0.0 s, tried again 3 times, HTTP 503"),
    ]


def test_an_artifact_that_cannot_be_made_is_told_loudly(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    for error in (ValueError("no font"), ConfigurationError("x"), OSError("disk full"), ImportError("vl_convert")):
        with log_errors(log, "the plot"):
            raise error
    assert [one.levelname for one in caplog.records] == ["ERROR"] * 4
    assert caplog.records[0].getMessage() == "the plot could not be made: ValueError: no font"
    with pytest.raises(KeyError), log_errors(log, "the plot"):
        raise KeyError("a bug")


def test_a_server_that_is_busy_costs_artifacts_and_no_archive(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*given: Any, **more: Any) -> Any:
        raise httpx.HTTPStatusError("503", request=httpx.Request("POST", "http://x"), response=httpx.Response(503))

    for name in ("create_table_artifact", "create_markdown_artifact", "create_progress_artifact"):
        monkeypatch.setattr(flows.report, name, busy)
    log = logging.getLogger("here")
    publish(of(receipt(1)), lake, ZTF, log)
    with Watch(log) as watch:
        watch.begin("ztf", 3)
        watch.advance("ztf", 2)
    assert caplog.text.count("could not be made: HTTPStatusError: 503") == 3
