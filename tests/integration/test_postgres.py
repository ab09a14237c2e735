"""What a catalogue in PostgreSQL has of its own; see test_kill.py for what it shares with SQLite."""

import threading
import uuid

import pytest
from helpers.granules import committed, content, count, errors, expected, register

from lake.catalog import Catalog
from lake.errors import CatalogError
from lake.maintenance import compact
from lake.query import Lake
from lake.settings import load_settings
from lake.storage import Storage

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
    compact(catalog)
    assert content(catalog) == expected({**dict.fromkeys(range(6), 1), 3: 2})
    assert errors(catalog) == []
    catalog.close()
    with Lake(settings.url, settings) as lake:
        assert lake.light_curve("T3").num_rows == 6
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
