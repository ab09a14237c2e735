"""The lakes that `benchmarks.lake` compares: both open, and have the rows that were generated."""

from __future__ import annotations

from pathlib import Path

from benchmarks.lake_rows import ROWS, commit_all, copy_as_written, register, run_compact, stage_some
from lake.query import Lake


def test_the_copy_and_the_compacted_lake_have_the_generated_rows(tmp_path: Path) -> None:
    url, copy = str(tmp_path / "compacted"), str(tmp_path / "written")
    register(url, 1)
    stage_some(url, 1, 0, 1)
    commit_all(url, 1)
    copy_as_written(url, copy)
    run_compact(url)
    for one in (url, copy):
        with Lake(one) as opened:
            assert opened.sql("SELECT count(*) AS n FROM lightcurves")["n"].to_pylist() == [ROWS]
