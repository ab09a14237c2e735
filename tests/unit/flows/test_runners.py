"""The task runner that settings name, and what is said of a Dask cluster that is not described as it has to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from helpers.processes import CLUSTER
from prefect_dask import DaskTaskRunner

from deployments.doctor import examine
from flows.doctor import dask
from flows.runners import task_runner
from lake.errors import ConfigurationError
from lake.settings import load_settings

LOCAL = "cluster_class: distributed.LocalCluster\n"


def runner(tmp_path: Path, text: str | bytes, **more: Any) -> DaskTaskRunner:
    """The runner of a file that describes a cluster."""
    path = tmp_path / "cluster.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    made = task_runner(load_settings(runner="dask", workers=6, dask_cluster=path, **more))
    assert isinstance(made, DaskTaskRunner)
    return made


def test_a_cluster_is_made_as_its_file_says(tmp_path: Path) -> None:
    made = runner(tmp_path, LOCAL + "cluster_kwargs: {processes: false, n_workers: 2}\nclient_kwargs: {timeout: 9}\n")
    assert made.cluster_class is LocalCluster
    assert made.cluster_kwargs == {"processes": False, "n_workers": 2}
    assert made.client_kwargs == {"timeout": 9, "set_as_default": False}
    assert not made.adapt_kwargs


def test_one_without_a_size_has_that_of_the_settings(tmp_path: Path) -> None:
    assert runner(tmp_path, LOCAL).cluster_kwargs == {"n_workers": 6}
    adaptive = runner(tmp_path, LOCAL + "adapt_kwargs: {minimum: 0}\n")
    assert (adaptive.cluster_kwargs, adaptive.adapt_kwargs) == ({}, {"minimum": 0, "maximum": 6})
    assert runner(tmp_path, LOCAL + "adapt_kwargs: {maximum_jobs: 9}\n").adapt_kwargs == {"maximum_jobs": 9}
    assert runner(tmp_path, LOCAL + "adapt_kwargs: {maximum: 9}\n").adapt_kwargs == {"maximum": 9}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cluster_class: [", "is not YAML: while parsing"),
        ("- dask_jobqueue.SLURMCluster\n", "is not a mapping with cluster_class"),
        ("", "is not a mapping with cluster_class"),
        ("cluster_kwargs: {cores: 1}\n", "is not a mapping with cluster_class"),
        (LOCAL + "cluster_kwarg: {cores: 1}\n", "has cluster_kwarg, which nothing reads"),
        (LOCAL + "adapt_kwargs: 5\n", "has adapt_kwargs, which is not a mapping"),
        (LOCAL + "cluster_kwargs: {asynchronous: true}\n", "has asynchronous, which Prefect sets itself"),
        ("cluster_class: os.path.join\n", "has cluster_class os.path.join, which is not a class"),
        ("cluster_class: no_such_package.Cluster\n", r"no_such_package.Cluster cannot be imported: .*\[cluster\]"),
        ("cluster_class: distributed.NoCluster\n", "distributed.NoCluster cannot be imported"),
        (b"\xff\xfe", "cannot read .*cluster.yaml: it is no text"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_that_names_it(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as error:
        runner(tmp_path, text)
    assert str(tmp_path / "cluster.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_no_file_or_two_clusters(tmp_path: Path) -> None:
    missing = load_settings(runner="dask", dask_cluster=tmp_path / "slurm.yaml")
    with pytest.raises(ConfigurationError, match=r"cannot read .*slurm.yaml: No such file"):
        task_runner(missing)
    with pytest.raises(ConfigurationError, match="LIGHTLAKE_DASK_ADDRESS and LIGHTLAKE_DASK_CLUSTER are both set"):
        runner(tmp_path, LOCAL, dask_address="tcp://127.0.0.1:8786")
    # What is not used does not matter.
    assert task_runner(missing.model_copy(update={"runner": "threads"}))


def test_the_doctor_looks_for_the_command_that_starts_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_settings(runner="dask", dask_cluster=CLUSTER / "slurm.yaml")
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = dask(shipped)
    assert (check.status, check.hint) == ("fail", "run flows where jobs can be submitted")
    assert "the command sbatch is not in PATH" in check.found
    (tmp_path / "sbatch").touch(0o755)
    (check,) = dask(shipped)
    assert (check.status, check.found) == ("ok", f"dask_jobqueue.SLURMCluster, by {CLUSTER / 'slurm.yaml'}")
    (tmp_path / "cluster.yaml").write_text(LOCAL)
    (check,) = dask(load_settings(runner="dask", dask_cluster=tmp_path / "cluster.yaml"))
    assert (check.status, "distributed.LocalCluster" in check.found) == ("ok", True)
    monkeypatch.setenv("LIGHTLAKE_RUNNER", "dask")
    monkeypatch.setenv("LIGHTLAKE_DASK_CLUSTER", str(tmp_path / "none.yaml"))
    checks = {check.name: check for check in examine(str(tmp_path / "lake"), offline=True, timeout_s=2.0)}
    assert checks["dask cluster"].status == "fail"
    assert "none.yaml: No such file" in checks["dask cluster"].found
    assert checks["workers"].found.endswith("none.yaml")
