"""What a catalogue in PostgreSQL has of its own; see test_kill.py for what it shares with SQLite."""

import threading
import uuid
from contextlib import closing

import pytest
from helpers.granules import committed, content, count, errors, expected, register

from lake.commit.intents import PUBLISHING
from lake.commit.target_changes import remove_targets, rename_target
from lake.errors import CatalogError, ConfigurationError, LightlakeError, ReadOnly
from lake.light_curves import files_of
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.listing import LISTED
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

pytestmark = pytest.mark.server


def _settings(postgres, tmp_path, **more):
    return load_settings(
        url=str(tmp_path / "lake"), catalog=f"postgres:{postgres} schema=lake_{uuid.uuid4().hex[:12]}", **more
    )


def test_a_whole_life(postgres, tmp_path):
    settings = _settings(postgres, tmp_path)
    catalog = Catalog(Storage.from_url(settings.url), settings)
    assert catalog.create()
    assert not catalog.create()
    register(catalog, range(8))
    committed(catalog, range(5), "g0")
    assert committed(catalog, {3: 2, 4: 1, 5: 1}, "g1").replaced == 1
    assert errors(catalog) == []
    assert rename_target(catalog, "T1", "B").before == "T1"
    assert remove_targets(catalog, "T2").matches == 1
    assert errors(catalog) == []
    compact(catalog)
    assert content(catalog) == expected({**dict.fromkeys(range(6), 1), 3: 2})
    assert errors(catalog) == []
    catalog.close()
    with Lake(settings.url, settings) as lake:
        assert files_of(lake)[1].keys() >= set(LISTED), "files are read directly"
        assert lake.light_curve("T3").num_rows == lake.light_curve("T1").num_rows == 6
        assert "METADATA_SCHEMA 'lake_" in lake.attach_snippet()


def test_two_lakes_in_one_database(postgres, tmp_path):
    made = []
    for name in ("a", "b"):
        settings = _settings(postgres, tmp_path / name)
        catalog = Catalog(Storage.from_url(settings.url), settings)
        catalog.create()
        register(catalog, range(3))
        committed(catalog, range(len(made) + 1), "g0")
        made.append(catalog)
    assert [count(catalog, "sources") for catalog in made] == [1, 2]
    with made[0].lock(), made[1].lock():  # one does not wait for the other
        pass
    for catalog in made:
        assert errors(catalog) == []
        catalog.close()


def test_the_lock_ends_with_its_holder_and_says_when_it_gave_up(postgres, tmp_path):
    settings = _settings(postgres, tmp_path, lock_timeout_s=1.0)
    first, second = (Catalog(Storage.from_url(settings.url), settings) for _ in range(2))
    first.create()
    with first.lock(), pytest.raises(CatalogError, match="other writers held the catalogue") as error, second.lock():
        pass
    assert "\n" not in str(error.value)
    with second.lock():
        pass
    with pytest.raises(ZeroDivisionError), first.lock():
        raise ZeroDivisionError
    with second.lock():
        pass
    first.close()
    second.close()


def test_threads_of_one_process_wait_for_each_other(postgres, tmp_path):
    settings = _settings(postgres, tmp_path)
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    register(catalog, range(20))
    threads = [threading.Thread(target=committed, args=(catalog, range(2 * k, 2 * k + 6), f"g{k}")) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert content(catalog) == expected(dict.fromkeys(range(16), 1))
    assert errors(catalog) == []
    catalog.close()


def test_no_lake_in_that_schema(postgres, tmp_path):
    settings = _settings(postgres, tmp_path)
    with pytest.raises(CatalogError) as error:
        Lake(settings.url, settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", ["port=1", "dbname=nowhere"])
def test_a_wrong_address_is_one_line_without_the_password(postgres, tmp_path, wrong):
    settings = load_settings(url=str(tmp_path), catalog=f"postgres:{postgres} {wrong} password=hunter2")
    with pytest.raises(CatalogError) as error:
        Lake(settings.url, settings)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_user_of_the_database_who_may_only_read(postgres, tmp_path):
    settings = _settings(postgres, tmp_path)
    schema = settings.catalog.rpartition("=")[2]
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    register(catalog, range(4))
    committed(catalog, range(4))
    role = f"reader_{uuid.uuid4().hex[:8]}"

    def as_owner(*statements):
        with closing(catalog.cursor()) as cursor:
            for statement in statements:
                cursor.execute("CALL postgres_execute('__ducklake_metadata_lake', ?)", [statement])

    as_owner(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
    )
    reading = settings.model_copy(update={"catalog": settings.catalog.replace("user=lightlake", f"user={role}")})
    with Lake(reading.url, reading) as lake:
        assert lake.light_curve("T1").num_rows == 6
        committed(catalog, range(2), "g1")
        assert errors(lake.catalog) == []
    for rights in ("SELECT", "INSERT"):
        as_owner(f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO {role}")
        with pytest.raises(ReadOnly, match=role) as error:
            Lake(reading.url, reading, writable=True)
        with closing(Catalog(catalog.storage, reading)) as refused, pytest.raises(ReadOnly):
            compact(refused)
    assert not list((catalog.storage.staging / PUBLISHING).iterdir())
    as_owner(error.value.hint.partition(": ")[2])
    with Lake(reading.url, reading, writable=True) as lake:  # whoever owns the tables
        compact(lake.catalog)
    as_owner(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with pytest.raises(ReadOnly, match="default_transaction_read_only"):
        Lake(reading.url, reading, writable=True)
    as_owner(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    for writable in (False, True):
        with pytest.raises(CatalogError, match="too many connections for role") as error:
            Lake(reading.url, reading, writable=writable)
        assert "free connections" in error.value.hint
    with Lake(settings.url, settings) as lake:  # one who may write, through a handle that reads
        for statement in (
            "DELETE FROM targets",
            f'DELETE FROM __ducklake_metadata_lake."{schema}".ducklake_data_file',
            "CALL postgres_execute('__ducklake_metadata_lake', 'COMMIT; CREATE TABLE public.mine (a int)')",
        ):
            with pytest.raises(LightlakeError, match="reading only"):
                lake.sql(statement)
    with Lake(settings.url, settings, confined=True) as lake:
        assert lake.light_curve("T1").num_rows == 6
        committed(catalog, range(2, 4), "g2")
        for attack in (
            "FROM postgres_query('__ducklake_metadata_lake', 'SELECT pg_read_file(''/etc/passwd'') AS a')",
            f"FROM postgres_scan('{postgres}', '{schema}', 'ducklake_metadata')",
            "FROM pg_catalog.pg_tables",
            f"FROM __ducklake_metadata_lake.{schema}.ducklake_metadata",
            "SELECT path FROM duckdb_databases()",
            f"ATTACH '{postgres}' AS mine (TYPE postgres)",
        ):
            with pytest.raises(ConfigurationError) as error:
                pytest.fail(f"{attack}: {lake.sql(attack).to_pylist()}")
    assert errors(catalog) == []
    catalog.close()
