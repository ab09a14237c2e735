"""A database that commits and cannot say so: no file goes that the catalogue knows, and no row is lost or doubled."""

import os
import uuid
from contextlib import closing

import pytest
from helpers.granules import committed, content, count, errors, expected, register
from helpers.older import make_version_6
from helpers.proxy import AtCommit

from lake.commit.quarantine import held
from lake.query import Lake
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from tasks.register import register_archive
from tasks.sources.registry import known

pytestmark = pytest.mark.server

FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))


def _each_commit(faulty, work, fault="drop", step=1):
    """Do a piece of work again and again, each time with the next one of its COMMITs at fault, until all were.

    With a step of 3, every third is at fault; returns the number of the last that was.
    """
    number, last = 1, 0
    while True:
        faulty.choose = at = AtCommit(number, fault)
        work(number)
        faulty.choose = lambda request: None
        if at.seen < number:
            return last
        number, last = number + step, number


@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_at_each_commit_of_a_granule_that_replaces_rows(faulty, new, fault):
    register(new, range(12))
    held_now = dict.fromkeys(range(12), 1)
    committed(new, held_now, "g0")

    def work(number):
        change = dict.fromkeys((2, 3, 5), 1 + number)
        receipt = committed(new, change, f"g{number}")
        held_now.update(change)
        # Where the answer was lost the rows are in, and the second try has nothing to do.
        assert receipt.replaced in (0, 3)

    assert _each_commit(faulty, work, fault) >= 2
    assert faulty.faults >= 2
    assert content(new) == expected(held_now)
    assert errors(new) == []
    assert count(new, "ledger") == count(new, "(SELECT DISTINCT granule FROM ledger)")
    compact(new)
    assert content(new) == expected(held_now)
    assert errors(new) == []


def test_at_each_commit_of_a_compaction(faulty, new):
    register(new, range(12))
    held_now = {}

    def work(number):
        # Rows of the catalogue, deleted rows and small files: something for each step.
        change = dict.fromkeys(range(number % 3, 8), number)
        committed(new, change, f"g{number}")
        held_now.update(change)
        compact(new)
        assert content(new) == expected(held_now)

    assert _each_commit(faulty, work) >= 5
    assert errors(new) == []
    assert not held(new.storage)


def test_at_each_commit_of_targets_and_archives(faulty, new, through):
    with Lake(through.url, through, writable=True) as lake:

        def add(number):
            register(lake.catalog, range(10 * number, 10 * number + 5), f"sample{number}")
            assert count(lake.catalog, "targets") == 5 * number
            assert count(lake.catalog, "labels") == 5 * number

        assert _each_commit(faulty, add) >= 1

        archives = iter(known().values())

        def tell(number):
            archive = next(archives)
            register_archive(lake, archive)
            assert count(lake.catalog, "archives") == number

        assert _each_commit(faulty, tell) >= 1
        assert errors(lake.catalog) == []


def test_at_each_commit_of_a_migration(faulty, new, through):
    register(new, range(6))
    committed(new, range(6), "g0")

    def work(number):
        faulty.choose, fault = (lambda request: None), faulty.choose
        with closing(new.cursor()) as cursor:
            cursor.execute("DELETE FROM schema_version WHERE version = 6")  # of the time before
        make_version_6(new)
        faulty.choose = fault
        Catalog(Storage.from_url(through.url), through).create()
        assert errors(new) == []

    # The others do as their neighbours: each sets an option of a table.
    assert _each_commit(faulty, work, step=1 if FULL else 3) >= 2
    assert content(new) == expected(dict.fromkeys(range(6), 1))


def test_a_lake_is_made_whatever_commit_is_lost(faulty, through, tmp_path):
    def work(number):
        settings = through.model_copy(
            update={
                "url": str(tmp_path / f"lake{number}"),
                "catalog": f"{through.catalog.rpartition('schema=')[0]}schema=lake_{uuid.uuid4().hex[:12]}",
            }
        )
        with closing(Catalog(Storage.from_url(settings.url), settings)) as catalog:
            catalog.create()
            register(catalog, range(3))
            committed(catalog, range(3), "g0")
            assert content(catalog) == expected(dict.fromkeys(range(3), 1))
            assert errors(catalog) == []

    number = 1
    for number in range(1, 100 if FULL else 7):
        faulty.choose = at = AtCommit(number)
        work(number)
        if at.seen < number:
            break
    assert faulty.faults >= 5
