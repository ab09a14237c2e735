"""A catalogue in PostgreSQL that is put back by the database's own tools, and a lake on S3: nothing is deleted."""

import shutil
import subprocess
import uuid

import pytest
from helpers.granules import ARCHIVE, committed, content, errors, expected, register

from lake.commit.quarantine import held
from lake.errors import CatalogError, ConfigurationError
from lake.settings import load_settings
from lake.store.backup import backups
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from lake.upkeep.restore import restore

pytestmark = pytest.mark.server


def _catalog(url, spec):
    settings = load_settings(url=url, catalog=spec, lock_timeout_s=60.0)
    return Catalog(Storage.from_url(url), settings)


def test_a_dump_of_postgres_is_put_back_and_the_tree_comes_into_step(postgres, tmp_path):
    schema = f"lake_{uuid.uuid4().hex[:12]}"
    catalog = _catalog(str(tmp_path / "lake"), f"postgres:{postgres} schema={schema}")
    catalog.create()
    register(catalog, range(9))
    committed(catalog, range(5), "g0")
    compact(catalog)
    catalog.close()

    def run(tool, *arguments):
        subprocess.run([shutil.which(tool), *arguments], check=True, capture_output=True)

    dump = tmp_path / "catalog.dump"
    run("pg_dump", "--format=custom", f"--schema={schema}", f"--file={dump}", postgres)
    committed(catalog, {**dict.fromkeys(range(5, 8), 1), 0: 2}, "g1")
    compact(catalog)
    catalog.close()
    # A database without the lake is not one in which to make it anew.
    run("psql", postgres, "-c", f"DROP SCHEMA {schema} CASCADE")
    for act in (catalog.open, catalog.create):
        with pytest.raises(CatalogError, match="lightlake restore"):
            act()
        catalog.close()
    run("pg_restore", f"--dbname={postgres}", dump)
    with pytest.raises(ConfigurationError, match="pg_restore"):
        restore(catalog, "2026-01-01")
    done = restore(catalog)
    assert done.backup is None
    assert done.missing  # compaction has put them into larger ones since
    assert {row["granule"] for row in done.again.to_pylist()} == {"g0", "g1"}
    assert errors(catalog) == []
    register(catalog, range(9))
    committed(catalog, {**dict.fromkeys(range(8), 1), 0: 2}, "g2")
    assert content(catalog) == expected({**dict.fromkeys(range(8), 1), 0: 2})
    assert errors(catalog) == []
    catalog.close()


def test_a_lake_on_s3_with_an_older_catalogue(s3_lake, tmp_path):
    catalog = _catalog(s3_lake, f"sqlite:{tmp_path / 'catalog.sqlite'}")
    catalog.create()
    register(catalog, range(9))
    committed(catalog, range(5), "g0")
    compact(catalog)
    assert [backup.path.parent for backup in backups(catalog.storage)] == [catalog.storage.root / "backups"]
    committed(catalog, [5, 6], "g1")
    catalog.close()
    other = _catalog(s3_lake, f"sqlite:{tmp_path / 'fresh.sqlite'}")
    for act in (other.open, other.create):
        with pytest.raises(CatalogError, match="lightlake restore"):
            act()
        other.close()
    (tmp_path / "catalog.sqlite").unlink()
    done = restore(catalog)
    assert done.again.to_pylist() == [{"archive": ARCHIVE, "release": "DR1", "granule": "g1"}]
    assert done.quarantined == sum(one.files for one in held(catalog.storage)) > 0
    assert content(catalog) == expected(dict.fromkeys(range(5), 1))
    assert errors(catalog) == []
    catalog.close()
