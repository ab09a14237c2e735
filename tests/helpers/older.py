"""Lakes of older versions of the schema: made by the code of then, which the project's history has."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from helpers.granules import count
from helpers.processes import child_environment
from lake.store.catalog import Catalog
from lake.store.pruning import METADATA

ROOT = Path(__file__).parents[2]
_SCHEMA = ("lake/schema.py", "lake/model/schema.py")

# What the code of a version runs, with its own helpers: what this names has not changed since.
_MAKE = """
import sys
from pathlib import Path
from helpers.granules import committed, register
from lake.settings import load_settings
try:
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.compaction import compact
except ImportError:  # before packages
    from lake.catalog import Catalog
    from lake.storage import Storage
    try:
        from lake.compaction import compact
    except ImportError:  # before version 7
        from lake.maintenance import compact

catalog = Catalog(Storage(Path(sys.argv[1])), load_settings(url=sys.argv[1]))
catalog.create()
register(catalog, range(3))
committed(catalog, [0], "g0", exposures={"e0": 58000.0})
committed(catalog, [1, 2], "g1")
catalog.cursor().execute("INSERT INTO bands (archive, band, description) VALUES ('ztf', 'g', 'PSF fit')")
compact(catalog)
catalog.close()
"""


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def _is_shallow() -> bool:
    try:
        return _git("rev-parse", "--is-shallow-repository").strip() == b"true"
    except (OSError, subprocess.CalledProcessError):
        return True  # no repository at all


def code_of(version: int, folder: Path, *packages: str) -> Path:
    """Unpack the last code of a version of the schema into a folder: its core and helpers, and other packages."""
    try:
        since = _git("log", "--format=%H", f"-SSCHEMA_VERSION = {version + 1}", "--", *_SCHEMA).split()[-1]
        packed = _git("archive", f"{since.decode()}^", "lake", "tests/helpers", *packages)
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        if "history" in os.environ.get("LIGHTLAKE_TEST_REQUIRE", "") and not _is_shallow():
            raise
        pytest.skip(f"no history of the project with version {version} of the schema: {error}")
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@contextmanager
def making(code: Path, root: Path) -> Iterator[Callable[[], Path]]:
    """Begin to make a lake of three sources, compacted, by the code in a folder; yields what waits for it."""
    log = root.with_suffix(".log")
    path = os.pathsep.join([str(code), str(code / "tests")])
    environment = child_environment(PYTHONPATH=path, LIGHTLAKE_DUCKDB_THREADS="1")
    environment.pop("LIGHTLAKE_CATALOG", None)
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", _MAKE, str(root)], cwd=code, env=environment, stdout=out, stderr=subprocess.STDOUT
        )

    def made() -> Path:
        assert process.wait() == 0, log.read_text()
        return root

    try:
        yield made
    finally:
        process.wait()


def make_version_6(catalog: Catalog) -> None:
    """Make a lake of version 6 of one of this version, and let go of it."""
    cursor = catalog.cursor()
    for table, column in (
        ("labels", "added_at"),
        ("labels", "name"),
        ("schema_version", "lake_id"),
        ("schema_version", "declared"),
        ("lightcurves", "cadence_s"),
        ("ledger", "run_id"),
    ):
        # Else a plain reader would still find the values in the files.
        cursor.execute(f"UPDATE {table} SET {column} = NULL WHERE {column} IS NOT NULL")
        cursor.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    cursor.execute("UPDATE schema_version SET version = 6")
    cursor.close()
    catalog.close()


def unsaid(catalog: Catalog) -> int:
    """Count columns of floats in files of which the catalogue does not say whether they have NaN."""
    schema = catalog.location.schema
    floats = (
        f"(SELECT column_id, table_id FROM {METADATA}.\"{schema}\".ducklake_column WHERE column_type LIKE 'float%')"
    )
    statistics = f'{METADATA}."{schema}".ducklake_file_column_stats'
    return count(catalog, f"{statistics} WHERE contains_nan IS NULL AND (column_id, table_id) IN {floats}")
