"""Making, opening, migrating and locking a catalogue; one clear line whenever it cannot be."""

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import pytest
from helpers.granules import committed, content, count, errors, expected, register

import lake.store.catalog
import lake.store.migrations
from lake.commit.runs import Start, begin
from lake.errors import CatalogError, ConfigurationError, NoLake
from lake.model.schema import SCHEMA_VERSION, TABLES
from lake.model.table import Column
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.location import CatalogLocation
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

ROOT = Path(__file__).parents[4]


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


def _asked(catalog, query):
    cursor = catalog.cursor()
    rows = cursor.execute(query.format(metadata="__ducklake_metadata_lake.main")).fetchall()
    cursor.close()
    return rows


def test_work_in_a_new_lake_changes_no_schema_which_connections_would_load_again(catalog):
    schema = "SELECT max(schema_version) FROM {metadata}.ducklake_snapshot"
    before = _asked(catalog, schema)
    register(catalog, range(3))
    begin(catalog, Start("run", "a run", "here", 1, datetime(2026, 1, 1, tzinfo=UTC)))
    committed(catalog, range(3))
    assert _asked(catalog, schema) == before
    compact(catalog)
    committed(catalog, [2], "g1")
    assert _asked(catalog, schema) == before


@pytest.mark.parametrize("step", ["_create 1", "_keep_rows 2", "_create 2", "_keep_rows 3", "_keep_in_catalogue 1"])
def test_a_creation_that_ended_between_tables_is_completed(tmp_path, settings, monkeypatch, step):
    (name, _, number), module = step.partition(" "), lake.store.migrations
    kept = (
        "SELECT option.key, option.value, named.table_name FROM {metadata}.ducklake_metadata AS option "
        "LEFT JOIN {metadata}.ducklake_table AS named ON named.table_id = option.scope_id "
        "WHERE key NOT IN ('data_path', 'created_by') ORDER BY ALL"
    )
    made = []
    for ended in (False, True):
        catalog = Catalog(Storage(tmp_path / str(ended)), settings)
        if ended:
            ends = Mock(side_effect=[DEFAULT] * (int(number) - 1) + [KeyboardInterrupt], wraps=getattr(module, name))
            with monkeypatch.context() as patch:
                patch.setattr(module, name, ends)
                with pytest.raises(KeyboardInterrupt):
                    catalog.create()
            catalog.close()
            with pytest.raises(NoLake):
                catalog.open()
            catalog.close()
        assert catalog.create()
        made.append((_asked(catalog, kept), _asked(catalog, "SELECT name FROM (SHOW TABLES) ORDER BY name")))
        register(catalog, range(3))
        committed(catalog, range(3))
        assert errors(catalog) == []
        catalog.close()
    assert made[0] == made[1]


NEXT = SCHEMA_VERSION + 1


def _as_next_version(monkeypatch, steps):
    monkeypatch.setattr(lake.store.catalog, "SCHEMA_VERSION", NEXT)
    monkeypatch.setattr(lake.store.migrations, "SCHEMA_VERSION", NEXT)
    monkeypatch.setattr(lake.store.migrations, "MIGRATIONS", {NEXT: steps})


def test_an_old_lake_is_refused_until_init_migrates_it(catalog, settings, monkeypatch):
    register(catalog, range(5))
    committed(catalog, range(5))
    catalog.close()
    _as_next_version(monkeypatch, ["ALTER TABLE sources ADD COLUMN colour VARCHAR"])
    with pytest.raises(CatalogError) as error:
        catalog.open()
    assert re.findall(r"schema version (\d+).* (\d+)\b", _one_line(error))[0] == (str(SCHEMA_VERSION), str(NEXT))
    assert "lightlake init" in error.value.hint
    catalog.close()
    assert catalog.create()
    assert not catalog.create()
    assert content(catalog) == expected(dict.fromkeys(range(5), 1))
    assert count(catalog, "sources WHERE colour IS NULL") == 5
    assert catalog.cursor().execute("SELECT max(version) FROM schema_version").fetchall() == [(NEXT,)]
    # Files of before have no such column, and need none.
    colour = Column("colour", "VARCHAR", "Colour")
    monkeypatch.setitem(TABLES, "sources", replace(TABLES["sources"], columns=(*TABLES["sources"].columns, colour)))
    assert errors(catalog) == []


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
    catalog.cursor().execute("INSERT INTO schema_version VALUES (70, 'lightlake 9.9', now(), 'x', NULL)")
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
    with pytest.raises(ConfigurationError, match="S3 cannot hold a database") as error:
        Catalog(Storage.from_url("s3://bucket/lake"), load_settings(url="s3://bucket/lake"))
    assert "LIGHTLAKE_CATALOG" in _one_line(error)


def test_a_file_url_is_a_folder(tmp_path):
    assert Storage.from_url(f"file://{tmp_path}/x").root == tmp_path / "x"


def test_a_place_that_cannot_be_written(tmp_path, settings):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigurationError) as error:
        Catalog(Storage(tmp_path / "file/lake"), settings).create()
    assert "cannot make a lake" in _one_line(error)


@pytest.mark.parametrize("name", ["a\\b", "a\nb"])
def test_a_folder_below_which_duckdb_finds_nothing(tmp_path, settings, name):
    with pytest.raises(ConfigurationError) as error:
        Catalog(Storage(tmp_path / name), settings).create()
    assert repr(name[1]) in _one_line(error)
    assert not (tmp_path / name).exists()


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
    with Lake(place, settings, writable=True) as moved:
        committed(moved.catalog, range(3, 8), "g1")
        assert content(moved.catalog) == expected(dict.fromkeys(range(8), 1))
        assert errors(moved.catalog) == []


def _script_of_a_whole_life(folder):
    return f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from helpers.granules import *
from lake.query import Lake
from lake.model.schema import SCHEMA_VERSION, TABLES
from lake.settings import load_settings
from lake.store.storage import Storage
from lake.model.table import Column
settings = load_settings(url={str(folder)!r})
catalog = Catalog(Storage.from_url(settings.url), settings)
catalog.create()
register(catalog, range(4))
committed(catalog, range(4))
catalog.close()
with Lake(settings.url, settings) as lake:
    print(lake.light_curve("T1").num_rows, len(errors(lake.catalog)))
"""


@pytest.mark.long
def test_everything_works_without_network_or_home(tmp_path):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no permission to leave the network: unshare -rn")
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", _script_of_a_whole_life(tmp_path / "lake")],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["6", "0"], done.stderr
    assert list(home.iterdir()) == []
