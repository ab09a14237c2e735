"""Making, opening, migrating and locking a catalogue; one clear line whenever it cannot be."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.granules import committed, content, count, errors, expected, register, staged

import lake.catalog
from lake.catalog import Catalog, CatalogLocation, redacted
from lake.commit import commit
from lake.errors import CatalogError, ConfigurationError
from lake.maintenance import compact
from lake.query import Lake
from lake.schema import SCHEMA_VERSION, TABLES
from lake.settings import load_settings
from lake.storage import Storage

ROOT = Path(__file__).parents[3]


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert error.value.hint
    return text


def test_init_makes_a_lake_once(tmp_path, settings):
    catalog = Catalog(Storage(tmp_path / "new"), settings)
    assert catalog.create()
    before = count(catalog, "lake.snapshots()")
    assert not catalog.create()
    assert count(catalog, "lake.snapshots()") == before
    assert count(catalog, "schema_version") == 1
    catalog.close()


NEXT = SCHEMA_VERSION + 1


def _as_next_version(monkeypatch, steps):
    monkeypatch.setattr(lake.catalog, "SCHEMA_VERSION", NEXT)
    monkeypatch.setattr(lake.catalog, "MIGRATIONS", {NEXT: steps})


def test_an_old_lake_is_refused_until_init_migrates_it(catalog, settings, monkeypatch):
    register(catalog, range(5))
    committed(catalog, range(5))
    catalog.close()
    _as_next_version(monkeypatch, ["ALTER TABLE sources ADD COLUMN colour VARCHAR"])
    with pytest.raises(CatalogError) as error:
        catalog.open()
    assert f"has schema version {SCHEMA_VERSION}, this is {NEXT}" in _one_line(error)
    assert "lightlake init" in error.value.hint
    catalog.close()
    assert catalog.create()
    assert not catalog.create()
    assert content(catalog) == expected(dict.fromkeys(range(5), 1))
    assert count(catalog, "sources WHERE colour IS NULL") == 5
    assert catalog.cursor().execute("SELECT max(version) FROM schema_version").fetchall() == [(NEXT,)]


def test_a_lake_of_version_1_gets_the_columns_that_came_since(catalog):
    added = {
        "bands": ("ab_minus_mag", "ab_source"),
        "sources": (
            "ra_err", "dec_err", "parallax", "parallax_err", "pm_ra_err", "pm_dec_err", "astfit_chisq", "astfit_params",
            "uwe", "duplicate", "left_out",
        ),
        "lightcurves": ("x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext"),
        "exposures": ("seeing_arcsec", "sky_level", "ellipticity"),
        "ledger": ("n_found", "retries", "requests"),
    }  # fmt: skip
    cursor = catalog.cursor()
    for table, columns in added.items():
        for column in columns:
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    cursor.execute("DROP VIEW rxte")
    cursor.execute("DROP TABLE channels")
    cursor.execute("UPDATE schema_version SET version = 1")
    cursor.close()
    catalog.close()
    assert catalog.create()
    assert catalog.cursor().execute("SELECT count(*) FROM rxte").fetchall() == [(0,)]
    for table in (*added, "channels"):
        described = {
            row[0]: row[1].replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
            for row in catalog.cursor().execute(f"DESCRIBE {table}").fetchall()
        }
        assert described == {column.name: column.type for column in TABLES[table].columns}
        comments = catalog.cursor().execute(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ? AND database_name = 'lake'", [table]
        )
        assert dict(comments.fetchall()) == {column.name: column.comment for column in TABLES[table].columns}


def test_a_lake_of_version_5_keeps_its_ledger_and_does_not_know_retries_of_then(tmp_path, settings, monkeypatch):
    root = tmp_path / "older"
    catalog = Catalog(Storage(root), settings.model_copy(update={"url": str(root), "catalog": None}))
    with monkeypatch.context() as then:
        then.setattr(lake.catalog, "SCHEMA_VERSION", 5)
        then.setitem(TABLES, "ledger", replace(TABLES["ledger"], columns=TABLES["ledger"].columns[:-3]))
        catalog.create()
        catalog.cursor().execute(
            "INSERT INTO ledger BY NAME SELECT 'ztf' AS archive, 'DR1' AS release, 'old' AS granule, 'done' AS status, "
            "3 AS n_targets, 3 AS n_sources, 18 AS n_rows, 9 AS bytes, 1 AS attempt, now() AS started_at, "
            "1.5 AS seconds, '{}' AS parameters, 'lightlake 0' AS software"
        )
        assert "retries" not in [row[0] for row in catalog.cursor().execute("DESCRIBE ledger").fetchall()]
        catalog.close()
    with pytest.raises(CatalogError, match="has schema version 5, this is 6"):
        catalog.open()
    catalog.close()
    assert catalog.create()
    register(catalog, range(5))
    commit(catalog, staged(catalog, range(3, 5), "new").told(retries=2, requests=7))
    query = "SELECT granule, n_sources, n_found, retries, requests FROM ledger ORDER BY granule DESC"
    for step in (lambda: None, lambda: compact(catalog)):
        step()
        assert catalog.cursor().execute(query).fetchall() == [("old", 3, None, None, None), ("new", 2, 2, 2, 7)]
        assert errors(catalog) == []
    catalog.close()


def test_a_migration_that_fails_leaves_the_old_lake(catalog, monkeypatch):
    catalog.close()
    with monkeypatch.context() as patch:
        _as_next_version(patch, ["ALTER TABLE sources ADD COLUMN colour VARCHAR", "SELECT no_such_column"])
        with pytest.raises(CatalogError) as error:
            catalog.create()
        _one_line(error)
        catalog.close()
    catalog.open()
    assert "colour" not in [row[0] for row in catalog.cursor().execute("DESCRIBE sources").fetchall()]


def test_a_newer_schema_is_refused(catalog):
    catalog.cursor().execute("INSERT INTO schema_version VALUES (70, 'lightlake 9.9', now())")
    catalog.close()
    for act in (catalog.open, catalog.create):
        with pytest.raises(CatalogError) as error:
            act()
        assert f"schema version 70, newer than this software's {SCHEMA_VERSION}" in _one_line(error)
        catalog.close()


def test_no_lake_there(tmp_path, settings):
    with pytest.raises(CatalogError) as error:
        Lake(tmp_path / "nowhere", settings)
    assert f"there is no lake at {tmp_path / 'nowhere'}" in _one_line(error)
    assert not (tmp_path / "nowhere").exists()


def test_an_sqlite_file_that_holds_no_lake(tmp_path, settings):
    import sqlite3

    (tmp_path / "lake").mkdir()
    with sqlite3.connect(tmp_path / "lake/catalog.sqlite") as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    with pytest.raises(CatalogError) as error:
        Lake(tmp_path / "lake", settings)
    _one_line(error)


@pytest.mark.parametrize("url", ["s3://", "gs://bucket/lake", "http://host/lake", ""])
def test_a_url_of_another_kind(url):
    with pytest.raises(ConfigurationError) as error:
        Storage.from_url(url)
    _one_line(error)


def test_a_lake_on_s3_needs_a_catalogue_elsewhere(settings):
    with pytest.raises(ConfigurationError, match="no database lives on S3") as error:
        Catalog(Storage.from_url("s3://bucket/lake"), load_settings(url="s3://bucket/lake"))
    assert "LIGHTLAKE_CATALOG" in _one_line(error)


def test_a_file_url_is_a_folder(tmp_path):
    assert Storage.from_url(f"file://{tmp_path}/x").root == tmp_path / "x"


def test_a_place_that_cannot_be_written(tmp_path, settings):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError) as error:
        Catalog(Storage(tmp_path / "file/lake"), settings).create()
    assert "cannot make a lake" in _one_line(error)


@pytest.mark.parametrize("spec", ["mysql:host=x", "sqlite:", "postgres:", "nonsense"])
def test_a_catalogue_of_another_kind(tmp_path, spec):
    with pytest.raises(ConfigurationError) as error:
        CatalogLocation.parse(spec, Storage(tmp_path))
    assert "sqlite:PATH" in _one_line(error)


def test_locations(tmp_path):
    assert CatalogLocation.parse(None, Storage(tmp_path)).target == str(tmp_path / "catalog.sqlite")
    location = CatalogLocation.parse("postgres:host=h schema=lake2 dbname=d", Storage(tmp_path))
    assert (location.target, location.metadata_schema) == ("host=h dbname=d", "lake2")


def _garbage(path):
    path.write_bytes(os.urandom(50_000))


def _truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_garbage, _truncated, _empty])
def test_a_damaged_catalogue(catalog, settings, damage):
    catalog.close()
    damage(Path(catalog.location.target))
    with pytest.raises(CatalogError) as error:
        Lake(settings.url, settings)
    assert "catalog.sqlite" in _one_line(error)


def test_passwords_are_not_shown(tmp_path):
    spec = "postgres:host=h user=u password=hunter2 dbname=d"
    assert "hunter2" not in str(CatalogLocation.parse(spec, Storage(tmp_path)))
    for text in (
        "password=hunter2", "password = 'hunter2 two'", r"password='a\'hunter2' x=y", "postgresql://u:hunter2@h/d"
    ):  # fmt: skip
        assert "hunter2" not in redacted(text)
        assert "***" in redacted(text)


def test_a_wrong_host_is_one_line_without_the_password(tmp_path):
    spec = "postgres:host=127.0.0.1 port=1 user=u password=hunter2 dbname=d connect_timeout=2"
    catalog = Catalog(Storage(tmp_path), load_settings(catalog=spec))
    with pytest.raises(CatalogError) as error:
        catalog.open()
    assert "127.0.0.1" in _one_line(error)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_the_lock_lets_one_in_and_says_when_it_gave_up(catalog, settings):
    patient = settings.model_copy(update={"lock_timeout_s": 0.2})
    other = Catalog(catalog.storage, patient)
    entered = threading.Event()
    with catalog.lock(), pytest.raises(CatalogError) as error, other.lock():
        entered.set()
    assert not entered.is_set()
    assert "held the catalogue" in _one_line(error)
    with other.lock():
        entered.set()
    assert entered.is_set()


def test_an_error_under_the_lock_stays_what_it_is(catalog):
    with pytest.raises(PermissionError, match="something else"), catalog.lock():
        raise PermissionError("something else")
    with catalog.lock():
        pass


def test_a_moved_lake_opens_and_goes_on(catalog, settings, tmp_path, on_disk):
    register(catalog, range(8))
    committed(catalog, range(5))
    catalog.close()
    place = tmp_path / "it's [2] year=2024" / "lake"
    place.parent.mkdir()
    shutil.move(settings.url, place)
    with Lake(place, settings) as moved:
        committed(moved.catalog, range(3, 8), "g1")
        assert content(moved.catalog) == expected(dict.fromkeys(range(8), 1))
        assert errors(moved.catalog) == []


def _script_of_a_whole_life(folder):
    return f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.granules import *
from lake.query import Lake
from lake.schema import SCHEMA_VERSION, TABLES
from lake.settings import load_settings
from lake.storage import Storage
settings = load_settings(url={str(folder)!r})
catalog = Catalog(Storage.from_url(settings.url), settings)
catalog.create()
register(catalog, range(4))
committed(catalog, range(4))
catalog.close()
with Lake(settings.url, settings) as lake:
    print(lake.light_curve("T1").num_rows, len(errors(lake.catalog)))
"""


def test_everything_works_without_network_or_home(tmp_path):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no permission to leave the network: unshare -rn")
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", _script_of_a_whole_life(tmp_path / "lake")],
        env={"PATH": os.environ["PATH"], "HOME": str(home)}, cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["6", "0"], done.stderr
    assert list(home.iterdir()) == []


@pytest.fixture
def open_folder():
    """A folder that other users can reach; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_one_who_may_only_read_can_ask_but_not_commit(catalog, open_folder, on_disk):
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv, to become another user")
    register(catalog, range(4))
    committed(catalog, range(4))
    catalog.close()
    root = shutil.copytree(catalog.storage.root, open_folder / "lake")
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.granules import errors
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.schema import SCHEMA_VERSION, TABLES
with Lake({str(root)!r}) as lake:
    print(lake.light_curve("T1").num_rows, len(errors(lake.catalog)))
    try:
        with lake.catalog.lock():
            pass
    except ConfigurationError as error:
        print(error)
"""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if subprocess.run([*nobody, sys.executable, "-c", "import numpy"], capture_output=True, cwd="/").returncode:
        pytest.skip("other users may not read this Python's packages")
    done = subprocess.run(
        [*nobody, sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"}, cwd="/", capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.startswith("6 0\ncannot write to"), done.stderr
