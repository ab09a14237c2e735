"""A lake that version 7 of the schema filled with TESS, Kepler and K2, when that archive was called lightkurve."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.archives import PLACES
from helpers.granules import errors
from helpers.older import code_of
from helpers.processes import Run, child_environment

from deployments.sandbox.server import Sandbox
from lake.model.schema import TABLES
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

pytestmark = pytest.mark.server

_MAKE = """
import sys
import pyarrow as pa
from lake.cli import main
from lake.commit.targets import add_targets
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

settings = load_settings()
catalog = Catalog(Storage.from_url(settings.url), settings)
catalog.create()
ra, dec = zip(*eval(sys.argv[1]))
add_targets(catalog, pa.table({"ra": ra, "dec": dec}), "stars")
catalog.close()
main(["pull", "lightkurve", "--local"])
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last code of version 7."""
    return code_of(7, tmp_path_factory.mktemp("code"), "tasks", "flows", "deployments")


@pytest.fixture
def mast(tmp_path: Path) -> Iterator[Sandbox]:
    """MAST's stand-in."""
    with Sandbox.start(tmp_path / "mast", archives=["tess_kepler"], seed=5, scale=0.02, targets=PLACES[:20]) as box:
        yield box


def _rows(catalog: Catalog, table: str) -> list[dict[str, Any]]:
    """Rows of a table in every column of this version; without the archive's name."""
    cursor = catalog.cursor()
    found: pa.Table = cursor.execute(f"FROM {table} ORDER BY ALL").to_arrow_table()
    cursor.close()
    return TABLES[table].cast(found).drop_columns("archive").to_pylist()


def test_it_is_renamed_and_asks_nothing_anew(
    anywhere: Settings, code: Path, mast: Sandbox, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "URL": anywhere.url,
        **({"CATALOG": anywhere.catalog} if anywhere.catalog else {}),
        "CACHE_DIR": str(tmp_path / "cache"),
        "ENDPOINTS__LIGHTKURVE": mast.endpoints["tess_kepler"],
        "DUCKDB_THREADS": "1",
    }.items():
        monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    ours = {name: value for name, value in os.environ.items() if name.startswith("LIGHTLAKE_")}
    environment = child_environment(PYTHONPATH=os.pathsep.join([str(code), str(code / "tests")]), **ours)
    places = [*PLACES[:20:4], (1.0, 1.0)]
    subprocess.run([sys.executable, "-c", _MAKE, repr(places)], cwd=code, env=environment, check=True)

    catalog = Catalog(Storage.from_url(anywhere.url), anywhere)
    catalog.check_lake()  # attaches it as it is
    held = {name for (name,) in catalog.cursor().execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    naming = [table.name for table in TABLES.values() if "archive" in table.names and table.name in held]
    before = {table: _rows(catalog, table) for table in naming}
    catalog.close()
    assert len(before["coverage"]) == len(places)
    assert before["lightcurves"]
    for row in before["lightcurves"]:
        row["cadence_s"], row["exposure_s"] = row["exposure_s"], None

    told = run("init", anywhere.url)
    assert told.code == 0, told
    assert "lightkurve" in told.out
    assert "nothing to do" in run("init", anywhere.url).out
    catalog.open()
    for table in naming:
        assert sorted(map(repr, _rows(catalog, table))) == sorted(map(repr, before[table])), table
    assert errors(catalog) == []
    catalog.close()

    mast.requests.clear()
    for name in ("tess_kepler", "lightkurve"):
        pulled = run("pull", name, "--local")
        assert (pulled.code, pulled.out) == (0, "tess_kepler: nothing to do, every target has its answer\n"), pulled
    assert not mast.requests
    refreshed = run("refresh", "lightkurve", "--plan", "--parameters", '{"lightkurve": {"tess_cadence_s": 20}}')
    assert refreshed.code == 0, refreshed
    with Lake(anywhere.url, anywhere) as lake:
        assert lake.coverage("lightkurve").num_rows == len(places)
        assert set(lake.sql("SELECT archive FROM archives")["archive"].to_pylist()) == {"tess_kepler"}
    assert run("compact").code == 0  # the pull has written what this version says of the archive
    catalog.open()
    assert errors(catalog) == []
    catalog.close()
