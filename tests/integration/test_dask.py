"""The same flows on Dask, with a cluster inside this process or beside it; for clusters of jobs see test_slurm.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from helpers.archives import register
from prefect import flow

from flows.pull import pull_archive
from flows.runners import PrefectRunner
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.upkeep.maintenance import verify
from tasks.pull import lake_at

pytestmark = pytest.mark.usefixtures("prefect_server")

INSIDE = """\
cluster_class: distributed.LocalCluster
cluster_kwargs: {processes: false, n_workers: 2, threads_per_worker: 1, dashboard_address: null}
"""
BESIDE = INSIDE.replace("processes: false, n_workers: 2", "processes: true, n_workers: 1, host: 127.0.0.1")


def test_a_pull_on_dask(
    catalog: Catalog,
    rows: Callable[..., list[dict[str, Any]]],
    pull_settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect_dask import DaskTaskRunner  # here: every process of the tests imports this file

    (tmp_path / "cluster.yaml").write_text(INSIDE)
    monkeypatch.setenv("LIGHTLAKE_RUNNER", "dask")
    monkeypatch.setenv("LIGHTLAKE_DASK_CLUSTER", str(tmp_path / "cluster.yaml"))
    register(catalog, range(12))
    with (
        patch.object(DaskTaskRunner, "__enter__", autospec=True, side_effect=DaskTaskRunner.__enter__) as clusters,
        patch.object(DaskTaskRunner, "submit", autospec=True, side_effect=DaskTaskRunner.submit) as tasks,
    ):
        state = pull_archive("icecube", return_state=True)
    assert (clusters.call_count, tasks.call_count) == (1, 1)
    assert state.is_completed(), state.message
    assert rows("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'") == [{"n": 12}]
    assert rows("SELECT count(*) > 0 AS some FROM lightcurves") == [{"some": True}]
    assert [finding.message for finding in verify(catalog) if finding.is_error] == []
    lake_at.cache_clear()


def work(number: int) -> int:
    """Work that one process of three does not survive."""
    if number == 1:
        os._exit(1)
    return number


@flow
def three(folder: Path) -> list[Any]:
    """Three pieces of work, one after the other: what each gives, or the error that it ends with."""
    (folder / "cluster.yaml").write_text(BESIDE)
    with PrefectRunner(load_settings(runner="dask", dask_cluster=folder / "cluster.yaml"), 1) as runs:
        ended = []
        for number in range(3):
            future = runs.submit(f"work {number}", (), work, number)
            ended.append(future.exception() or future.result())
        return ended


def test_what_a_lost_worker_had_is_told_and_the_rest_is_done(tmp_path: Path) -> None:
    from dask import config

    with config.set({"distributed.scheduler.allowed-failures": 0}):
        found = three(tmp_path)
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], Exception)
    assert "worker" in str(found[1])
