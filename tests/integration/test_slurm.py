"""More than one machine, with the files of deployments/cluster as they ship: SLURM's jobs, PostgreSQL, S3, Prefect."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.archives import register
from helpers.processes import CLUSTER, child_environment, lightlake, shipped_environment, until
from helpers.s3 import S3
from helpers.servers import PrefectServer
from helpers.slurm import PARTITION, Slurm, running
from helpers.virac import expected
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from deployments.sandbox import virac as sandbox_virac
from deployments.sandbox.server import Sandbox
from lake.query import Lake
from lake.settings import Settings, load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage, is_local
from lake.upkeep.maintenance import verify
from tasks.register import register_archive
from tasks.sources.virac.tiles import ORIGIN

pytestmark = pytest.mark.server

SMALL: dict[str, Any] = {"n_sources": 6, "n_pawprints": 60, "epochs": (25, 50)}


@dataclass(frozen=True)
class Site:
    """A lake with its catalogue in PostgreSQL, and what its processes have in their environment."""

    settings: Settings
    catalog: Catalog
    places: dict[str, str]
    common: dict[str, str]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Rows of the lake."""
        with Lake(self.settings.url, self.settings) as lake:
            return lake.sql(query).to_pylist()

    def staged(self) -> int:
        """Number of granules that are extracted and wait to be committed."""
        staging = self.catalog.storage.staging / "virac"
        if is_local(staging):
            return sum(1 for _ in staging.rglob("manifest.json"))
        staging.fs.invalidate_cache()
        return sum(path.endswith("/manifest.json") for path in staging.fs.find(staging.path))

    def assert_whole(self, tiles: Path) -> None:
        """Every tile is there once, with the rows that it has to have."""
        ledger = self.ask("SELECT regexp_extract(endpoint, '[^/]+$') AS name, status FROM ledger")
        paths = sorted(tiles.iterdir())
        assert Counter(row["name"] for row in ledger) == Counter(path.name for path in paths), "each tile has one entry"
        assert {row["status"] for row in ledger} == {"done"}
        there = self.ask("SELECT source_id, exposure_id, band, detected, mag FROM lightcurves")
        wanted = [{name: row[name] for name in there[0]} for path in paths for row in expected(path)[0]]
        assert sorted(map(repr, there)) == sorted(map(repr, wanted))
        assert [finding.message for finding in verify(self.catalog) if finding.is_error] == []


@pytest.fixture(params=["s3"])
def site(
    request: pytest.FixtureRequest,
    s3: S3,
    s3_lake: str,
    postgres: str,
    prefect_on_postgres: PrefectServer,
    tmp_path: Path,
) -> Iterator[Site]:
    """A new lake on S3 or in a folder, and the places of all servers as the files of deployments/cluster name them."""
    places = {
        "LIGHTLAKE_URL": s3_lake if request.param == "s3" else str(tmp_path / "lake"),
        "LIGHTLAKE_CATALOG": f"postgres:{postgres} schema=lake_{uuid.uuid4().hex[:12]}",
        "AWS_ENDPOINT_URL": s3.endpoint,
        "PREFECT_API_URL": prefect_on_postgres.api,
    }
    common = {
        **{name: value for name, value in s3.environment.items() if name not in places},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    settings = load_settings(url=places["LIGHTLAKE_URL"], catalog=places["LIGHTLAKE_CATALOG"])
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    with Lake(settings.url, settings, writable=True) as lake:
        register_archive(lake, ORIGIN)
    yield Site(settings, catalog, places, common)
    catalog.close()


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """SLURM of one node, for all tests of this file."""
    with running() as slurm:
        yield slurm


@pytest.fixture
def cluster(site: Site, slurm: Slurm) -> dict[str, str]:
    """Environment of cluster.env at this site."""
    here = shipped_environment(
        "cluster.env",
        **site.places,
        LIGHTLAKE_DASK_CLUSTER=str(CLUSTER / "slurm.yaml"),
        LIGHTLAKE_WORKERS="2",
        SBATCH_PARTITION=PARTITION,
        SBATCH_ACCOUNT="observers",
        DASK_JOBQUEUE__SLURM__INTERFACE="lo",
    )
    return child_environment(**{**site.common, **here, **slurm.environment})


def logs(folder: Path) -> str:
    """What jobs that began in a folder have said."""
    return "".join(f"{path.name}: {path.read_text()[-2000:]}\n" for path in sorted(folder.glob("*.out")))


def test_jobs_of_an_array_share_the_tiles_and_another_does_what_a_cancelled_one_left(
    site: Site, slurm: Slurm, cluster: dict[str, str], tmp_path: Path
) -> None:
    tiles = tmp_path / "tiles"
    sandbox_virac.write_tiles(tiles, 7, seed=11, **SMALL)
    submit = ["sbatch", "--parsable"]
    command = [CLUSTER / "virac.sbatch", tiles]
    with site.catalog.lock():  # so that nothing is committed before one of them is gone
        array = slurm.ask(*submit, "--array=0-2", *command, env=cluster, cwd=tmp_path)
        until(lambda: site.staged() == 3 or len(slurm.jobs()) < 3, "each job has a tile")
        assert set(slurm.jobs()) == {f"{array}_{n}" for n in range(3)}, logs(tmp_path)
        slurm.ask("scancel", f"{array}_2")
        until(lambda: len(slurm.jobs()) == 2, "one is gone")
    slurm.until_ended()
    assert Counter(slurm.states(array)) == {"COMPLETED": 2, "CANCELLED": 1}, logs(tmp_path)
    assert site.ask("SELECT count(*) AS n FROM ledger WHERE status = 'done'") == [{"n": 5}]
    rest = slurm.ask(*submit, *command, env=cluster, cwd=tmp_path)
    slurm.until_ended()
    assert slurm.states(rest) == ["COMPLETED"], logs(tmp_path)
    assert "7 of 7 tiles are in the lake" in (tmp_path / f"slurm-{rest}.out").read_text()
    site.assert_whole(tiles)
    with get_client(sync_client=True) as client:  # all of them have told the one server
        mine = FlowRunFilter(name=FlowRunFilterName(like_=f"VIRAC: {tiles}"))
        runs = client.read_flow_runs(flow_run_filter=mine)
    assert sorted(str(run.parameters["shard"]) for run in runs) == ["0/3", "1/3", "2/3", "None"]
    assert Counter(run.state.name for run in runs)["Completed"] == 3


@pytest.mark.parametrize("site", ["folder"], indirect=True)
def test_dask_runs_one_flow_in_several_jobs_and_outlives_one(
    site: Site, slurm: Slurm, cluster: dict[str, str], tmp_path: Path
) -> None:
    tiles = tmp_path / "tiles"
    sandbox_virac.write_tiles(tiles, 17, seed=12, **SMALL)  # a task has 16
    log = tmp_path / "flow.out"
    command = ["lightlake", "virac", str(tiles), "--runner", "dask"]
    with log.open("w") as out, site.catalog.lock():  # so that both jobs are in the middle of their work
        flow = subprocess.Popen(command, cwd=tmp_path, env=cluster, stdout=out, stderr=subprocess.STDOUT)
        try:
            until(lambda: site.staged() == 2 or flow.poll() is not None, "each job has a tile")
            both = slurm.jobs()
            assert list(both.values()) == ["RUNNING", "RUNNING"], log.read_text() + logs(tmp_path)
            assert "tls://" in slurm.ask("scontrol", "write", "batch_script", min(both), "-")
            slurm.ask("scancel", min(both))
            until(lambda: min(both) not in slurm.jobs(), "one is gone")
        except BaseException:
            _end(flow)
            raise
    try:
        assert flow.wait(240) == 0, log.read_text() + logs(tmp_path)
    finally:
        _end(flow)
    slurm.until_ended(60)
    assert "17 of 17 tiles are in the lake" in log.read_text()
    assert "INFO" not in log.read_text()
    site.assert_whole(tiles)


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def test_a_machine_of_a_cloud_account(site: Site, sandbox: Sandbox, tmp_path: Path) -> None:
    places = {name: value for name, value in site.places.items() if name != "AWS_ENDPOINT_URL"}
    here = shipped_environment(
        "cloud.env", **places, AWS_REGION=site.common["AWS_REGION"], LIGHTLAKE_CACHE_DIR=str(tmp_path / "cache")
    )
    register(site.catalog, range(8))
    stand_in = {"LIGHTLAKE_ENDPOINTS__ICECUBE": sandbox.endpoints["icecube"]}
    environment = {**site.common, **site.places, **here, **stand_in}
    pulled = lightlake("pull", "icecube", cwd=tmp_path, environment=environment)
    assert pulled.returncode == 0, pulled.stdout + pulled.stderr
    assert site.ask("SELECT count(*) AS n FROM coverage WHERE status <> 'failed'") == [{"n": 8}]
    assert site.ask("SELECT count(*) > 0 AS some FROM lightcurves") == [{"some": True}]
    assert [finding.message for finding in verify(site.catalog) if finding.is_error] == []
