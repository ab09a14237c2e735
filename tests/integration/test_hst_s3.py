"""HST exposures on a real S3 server, laid out as MAST's public bucket: the same rows as from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.s3 import S3

from deployments.sandbox.hst_datasets import association, write_files
from flows import local
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import path_of
from lake.upkeep.maintenance import verify
from tasks.pull.report import PullReport
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.protocol import Request

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("pull_settings")]


def pulled(catalog: Catalog, files: str) -> PullReport:
    options = HstOptions(files=files)
    outcome = local.pull(str(catalog.storage.root), Request("hst_timetag", options), load_settings())
    assert isinstance(outcome, PullReport), outcome
    return outcome


def test_exposures_of_a_bucket(
    s3: S3, catalog: Catalog, rows: Callable[..., list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__SIMBAD", "http://127.0.0.1:9")  # names stay as they are
    monkeypatch.setenv("LIGHTLAKE_RETRIES", "0")
    made = association(1, n=2, length_s=20.0, target="MADE", ra=80.0, dec=-45.0)
    home = f"s3://{s3.bucket('hst')}/hst/public"
    for path in write_files(tmp_path / "files", made):
        # hst/public/IPPP/IPPPSSOOT/IPPPSSOOT_SUFFIX.fits
        rootname = path.name.partition("_")[0]
        (path_of(home) / rootname[:4] / rootname / path.name).write_bytes(path.read_bytes())
    bins = "SELECT * EXCLUDE (granule) FROM hst_bins ORDER BY ALL"
    report = pulled(catalog, f"{home}/{made.name[:4]}")
    assert (report.lost, report.done) == (False, 3), report.message
    held = rows(bins)
    assert {row["exposure_id"] for row in held} == {one.rootname for one in made.exposures}
    # A run after it reads and does nothing.
    again = pulled(catalog, f"{home}/{made.name[:4]}")
    assert (again.done, again.done_before, rows(bins)) == (0, 3, held)
    # A folder has the same.
    assert pulled(catalog, str(tmp_path / "files")).done == 3
    assert rows(bins) == held
    assert [finding.message for finding in verify(catalog) if finding.is_error] == []
    # An exposure that was calibrated anew is fetched and extracted again, with its composite.
    first = made.exposures[0].rootname
    for path in (tmp_path / "files").glob(f"{first}_corrtag_*.fits"):
        (path_of(home) / first[:4] / first / path.name).write_bytes(path.read_bytes() + b"\0" * 2880)
    assert pulled(catalog, f"{home}/{made.name[:4]}").done >= 2
