"""What the benchmarks conclude from what they measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from benchmarks.growth import (
    PUBLISHED,
    Load,
    Sample,
    Site,
    errors,
    fit,
    hours,
    load_of,
    markdown,
    memory_gb,
    requests_by_kind,
    sites,
    touched,
)
from benchmarks.orchestration import Work, batched
from benchmarks.served import BUCKET, bucket, positions
from deployments.sandbox.server import Sandbox
from tasks.sources.rxte.observations import TOGETHER
from tasks.sources.virac.source import LIMITS

SITE = Site("here", cores=2, services=4, buckets=8, latency_s=0.1, mb_per_s=10.0, granule_s=1.0)


def sample(n: int, partitions: int = 0, **costs: float) -> Sample:
    every = dict.fromkeys(("cpu_s", "commit_s", "requests", "bytes", "granules", "n_rows", "parquet_bytes"), 0.0)
    return Sample(n, partitions, every | costs, 1.0, 400.0)


def test_a_line_is_found_again() -> None:
    line = fit([sample(n, cpu_s=3 + 0.5 * n) for n in (10, 40, 160)], "cpu_s")
    assert (line.fixed, line.per_target, line.per_partition) == pytest.approx((3, 0.5, 0))
    both = [sample(n, p, requests=1 + 0.25 * n + 6 * p) for n, p in ((10, 9), (40, 30), (10, 2), (40, 2), (160, 2))]
    line = fit(both, "requests")
    assert (line.fixed, line.per_target, line.per_partition) == pytest.approx((1, 0.25, 6))
    assert line.at(1_000, 100) == pytest.approx(851)


def test_nothing_costs_less_than_nothing() -> None:
    line = fit([sample(n, cpu_s=5 - 0.01 * n) for n in (10, 40, 160)], "cpu_s")
    assert line.fixed > 0
    assert line.per_target == 0
    assert fit([sample(10), sample(20)], "bytes").at(1e6, 0) == 0


def test_the_largest_size_is_predicted_from_the_others() -> None:
    grown = [sample(n, cpu_s=2.0 * n, n_rows=3.0 * n if n < 100 else 600.0) for n in (10, 40, 100)]
    off = errors(grown)
    assert off["cpu_s"] == pytest.approx(0, abs=1e-6)
    assert off["n_rows"] == pytest.approx(50)


def test_partitions_saturate() -> None:
    assert touched(1, 1_000) == pytest.approx(1)
    assert touched(1_000, 1_000) == pytest.approx(632, abs=1)
    assert touched(500_000, 1_000) == pytest.approx(1_000)
    assert touched(500_000, 0) == 0


def test_hours_are_of_whatever_is_longer_and_of_the_commits() -> None:
    nothing = Load(cpu_s=0, requests=0, mb=0, service_s=0, commit_s=0, granules=0, in_bucket=False)
    assert hours(nothing, SITE) == 0
    computing = Load(cpu_s=7_200, requests=10, mb=1, service_s=0, commit_s=1_800, granules=1_800, in_bucket=False)
    assert hours(computing, SITE) == pytest.approx(1 + 1)
    waiting = Load(cpu_s=1, requests=72_000, mb=36_000, service_s=3_600, commit_s=0, granules=0, in_bucket=False)
    assert hours(waiting, SITE) == pytest.approx((2 + 1 + 1) / 4)
    assert hours(Load(**{**vars(waiting), "in_bucket": True}), SITE) == pytest.approx((2 + 1 + 1) / 8)
    assert hours(Load(**{**vars(waiting), "at_once": 2}), SITE) == pytest.approx(((2 + 1) / 2 + 1) / 4)
    assert hours(Load(**{**vars(waiting), "request_s": 0.3}), SITE) == pytest.approx((2 + 6 + 1 + 1) / 4)


def test_where_few_targets_have_data_an_archive_takes_less() -> None:
    nothing = {name: fit([sample(10)], name) for name in ("cpu_s", "commit_s", "requests", "bytes", "granules")}
    known = PUBLISHED["tess_kepler"]
    assert load_of(nothing, known, 50).service_s == pytest.approx(9.0, abs=0.01)
    assert load_of(nothing, known, 50, share=1 / 50).service_s == pytest.approx(1.6)


def test_requests_are_extrapolated_by_what_answers_them() -> None:
    grown = [
        replace(sample(n), kinds={"/search": 2 + n // 10} | ({"/file": 3 * n} if n > 10 else {})) for n in (10, 40, 160)
    ]
    assert requests_by_kind(grown[:1], PUBLISHED["gaia"], 10) == pytest.approx({"/search": 3})
    found = requests_by_kind(grown[1:], PUBLISHED["gaia"], 1_000)
    assert found == pytest.approx({"/search": 102, "/file": 3_000})


def test_more_jobs_do_not_make_a_service_faster() -> None:
    machine, cluster, _ = sites(16)
    load = Load(cpu_s=1, requests=0, mb=0, service_s=3_600, commit_s=0, granules=0, in_bucket=False)
    assert hours(load, cluster) == hours(load, machine)


def test_memory_is_that_of_an_idle_process_and_of_each_fetch() -> None:
    assert memory_gb(300, 450, 4) == pytest.approx(0.9)
    assert memory_gb(300, 290, 4) == pytest.approx(0.3)


def test_the_table_has_a_row_an_archive() -> None:
    load = Load(cpu_s=7_200, requests=1_234, mb=5_600, service_s=0, commit_s=0, granules=0, in_bucket=False)
    told = markdown({"gaia": load}, {"gaia": (0.9, 0.4)}, [SITE], "gaia 10, 20")
    assert "Measured at n = gaia 10, 20" in told
    assert told.splitlines()[-1] == "| gaia | 1,234 | 5.6 | 1.0 | 0.9 | 0.4 |"
    assert all(one.source for one in PUBLISHED.values())


def test_granules_go_to_tasks_as_the_flows_have_it() -> None:
    assert batched(10, "one") == [1] * 10
    assert batched(40, "tiles") == [LIMITS.granules, LIMITS.granules, 40 - 2 * LIMITS.granules]
    assert [sum(batched(1_001, one)) for one in ("tiles", "observations", "pull")] == [1_001] * 3
    assert batched(600, "observations") == [TOGETHER["products"]] * 2 + [600 - 2 * TOGETHER["products"]]


def test_work_is_compared_with_all_of_its_tasks() -> None:
    assert Work(granules=8, tasks=2, seconds=20).percent(0.25) == pytest.approx(2.5)


def test_fewer_targets_are_the_first_of_more() -> None:
    for spread in ("sky", "field", "survey"):
        assert positions(500, spread)[:20] == positions(20, spread)


def test_targets_of_a_survey_lie_as_densely_however_many_there_are() -> None:
    ra, dec = np.array(positions(2_000, "survey")).T
    assert ra.max() - ra.min() == pytest.approx(10, abs=0.1)
    assert dec.max() - dec.min() == pytest.approx(4, abs=0.1)


def test_a_folder_is_served_as_a_bucket(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "one.txt").write_bytes(b"0123456789")
    (tmp_path / "a" / "deep" / "two.txt").write_bytes(b"2")
    with Sandbox() as box:
        box.mount(f"/{BUCKET}", bucket(tmp_path))
        there = fs.S3FileSystem(
            endpoint_override=box.url().removeprefix("http://").rstrip("/"), scheme="http", anonymous=True
        )
        listed = there.get_file_info(fs.FileSelector(f"{BUCKET}/a"))
        assert {one.path: one.type for one in listed} == {
            f"{BUCKET}/a/one.txt": fs.FileType.File,
            f"{BUCKET}/a/deep": fs.FileType.Directory,
        }
        with there.open_input_file(f"{BUCKET}/a/one.txt") as file:
            file.seek(4)
            assert file.read(3) == b"456"
        with pytest.raises(OSError, match=r"404|NOT_FOUND|not exist|No response body"):
            there.open_input_file(f"{BUCKET}/a/three.txt")
        assert box.sent > 0
