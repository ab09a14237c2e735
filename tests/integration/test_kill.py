"""kill -9 at any moment, two writers at once, a full disk: nothing is lost and nothing is there twice."""

import multiprocessing
import os
import random
import shutil
import time

import pytest
from helpers.crash import STEPS, child, commit_and_die, fill_the_disk, work
from helpers.granules import committed, content, count, errors, expected, register, staged

from lake.commit.commit import commit
from lake.commit.staging import Manifest
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact

# A few each time the tests run; all of them, on both catalogues, where .ci/run asks for it.
FULL = bool(os.environ.get("LIGHTLAKE_TEST_FULL"))
KILLS = 50 if FULL else 4
GRANULES = 100 if FULL else 6  # each of two writers commits them all

# Every step on a disk, of which two by default; with PostgreSQL those at which it matters what the
# database knows.
_CHANGES = ("after publish 3", "after COMMIT 1")
_SERVED = STEPS if FULL else ("after intent 1", "before COMMIT 1", "after COMMIT 1")
_STEPS = [
    *(("sqlite", step) for step in _CHANGES),
    *(pytest.param("sqlite", step, marks=pytest.mark.crash) for step in STEPS if step not in _CHANGES),
    *(pytest.param("postgres", step, marks=pytest.mark.server) for step in _SERVED),
]
MOST_SECONDS = 500

OLD = dict.fromkeys(range(10), 1)
NEW = {**dict.fromkeys(range(5, 15), 1), 7: 2}


def _begin(catalog):
    register(catalog, range(30))
    committed(catalog, OLD, "g0")


@pytest.fixture(scope="module")
def begun(template, tmp_path_factory):
    """A lake on disk with granule g0, to be copied."""
    root = tmp_path_factory.mktemp("begun") / "lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    _begin(catalog)
    catalog.close()
    return root


@pytest.fixture
def half_done(anywhere, request):
    """A lake with granule g0, and g1 staged, which overlaps it and changes one source."""
    if anywhere.catalog is None:
        shutil.copytree(request.getfixturevalue("begun"), anywhere.url)
        catalog = Catalog(Storage.from_url(anywhere.url), anywhere)
        catalog.open()
    else:
        catalog = request.getfixturevalue("anywhere_catalog")
        _begin(catalog)
    manifest = staged(catalog, NEW, "g1", exposures={"e1": 58000.0})
    yield catalog, manifest
    catalog.close()


def _killed(process, seconds=60):
    process.join(seconds)
    assert process.exitcode == -9


@pytest.mark.parametrize(("anywhere", "step"), _STEPS, indirect=["anywhere"])
def test_killed_at_a_step(half_done, anywhere, step):
    catalog, manifest = half_done
    before = content(catalog)
    _killed(child(commit_and_die, anywhere, manifest.folder, step))
    through = count(catalog, "ledger WHERE granule = 'g1'") == 1
    after = step in ("after COMMIT 1", "before unlink 1", "before discard 1")
    assert through == after
    assert content(catalog) == (expected(OLD | NEW) if through else before)
    assert {finding.check for finding in errors(catalog)} <= {"orphans"}
    # The lake may have been moved to another place since, and staging goes with it.
    again = Manifest.read(catalog.storage.staging / "g1-0")
    assert again is not None
    commit(catalog, again)
    assert content(catalog) == expected(OLD | NEW)
    assert errors(catalog) == []
    assert count(catalog, "ledger WHERE granule = 'g1'") == 1
    assert not (catalog.storage.staging / "g1-0").exists()


@pytest.mark.crash
@pytest.mark.parametrize("step", ["before COMMIT 1", "after COMMIT 1"])
def test_killed_and_pulled_anew_into_the_same_folder(half_done, anywhere, step):
    """What was staged may be a second name of a file that is live: it must not change."""
    catalog, manifest = half_done
    _killed(child(commit_and_die, anywhere, manifest.folder, step))
    anew = staged(catalog, {**NEW, 8: 3}, "g1", again=1, folder=catalog.storage.staging / "g1-0")
    assert {finding.check for finding in errors(catalog)} <= {"orphans"}
    commit(catalog, anew)
    assert content(catalog) == expected(OLD | NEW | {8: 3})
    assert errors(catalog) == []


@pytest.mark.crash
def test_killed_moved_and_opened_elsewhere(half_done, anywhere, tmp_path):
    if not half_done[0].storage.is_local:
        pytest.skip("of a lake on disk")
    catalog, manifest = half_done
    _killed(child(commit_and_die, anywhere, manifest.folder, "before COMMIT 1"))
    catalog.close()
    moved = catalog.storage.root.rename(tmp_path / "elsewhere")
    catalog = Catalog(type(catalog.storage)(moved), anywhere.model_copy(update={"url": str(moved)}))
    committed(catalog, {20: 1}, "g2")
    compact(catalog)
    assert content(catalog) == expected(OLD | {20: 1})
    assert errors(catalog) == []
    catalog.close()


def _granules(n):
    """Each shares three sources with the one before; about one in seven is of another version there."""
    return [(f"g{k}", {s: 1 + ((k + s) % 7 == 0) for s in range(3 * k, 3 * k + 6)}) for k in range(n)]


def _model(catalog, granules):
    """What must be in the lake, if its ledger is right."""
    by_name = dict(granules)
    held = {}
    cursor = catalog.cursor()
    for (granule,) in cursor.execute("SELECT granule FROM ledger ORDER BY snapshot_id").fetchall():
        held |= by_name[granule]
    cursor.close()
    return expected(held)


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_killed_at_random(anywhere_catalog, anywhere):
    catalog, granules = anywhere_catalog, _granules(400)
    register(catalog, range(3 * 400 + 6))
    generator = random.Random(20240501)
    start = time.monotonic()
    child(work, anywhere, granules[:2]).join(60)
    longest = min(time.monotonic() - start, 1.0)  # a start and two commits, on this machine
    done = []
    for kill in range(KILLS):
        here, there = multiprocessing.Pipe()
        process = child(work, anywhere, granules, 0, 9, there)
        here.recv()
        time.sleep(generator.uniform(0, longest))
        process.kill()
        _killed(process)
        assert content(catalog) == _model(catalog, granules)
        done.append(count(catalog, "ledger"))
        if kill % 10 == 9:
            assert {finding.check for finding in errors(catalog)} <= {"orphans"}
    assert done[-1] >= KILLS // 5, "the kills came before any commit"
    first = granules[: done[-1] + 5]
    process = child(work, anywhere, first)
    process.join(120)
    assert process.exitcode == 0
    compact(catalog)
    assert count(catalog, "ledger") == len(first)
    assert content(catalog) == _model(catalog, granules)
    assert errors(catalog) == []
    assert list(catalog.storage.root.rglob("*.part")) == []


@pytest.mark.crash
@pytest.mark.timeout(600)
def test_two_writers_at_once(anywhere_catalog, anywhere):
    catalog, granules = anywhere_catalog, _granules(GRANULES)
    register(catalog, range(3 * GRANULES + 6))
    shuffled = random.Random(1).sample(granules, len(granules))
    writers = [child(work, anywhere, granules, 0), child(work, anywhere, shuffled, 1)]
    end = time.monotonic() + MOST_SECONDS
    while any(writer.is_alive() for writer in writers) and time.monotonic() < end:
        content(catalog)  # a reader is never in the way, and sees sources with all their rows
        time.sleep(0.05)
    for writer in writers:
        writer.join(1)
        assert writer.exitcode == 0
    assert count(catalog, "ledger") == 2 * GRANULES
    assert count(catalog, "ledger WHERE attempt = 2") == GRANULES
    assert content(catalog) == _model(catalog, granules)
    assert errors(catalog) == []


def test_a_full_disk(anywhere_catalog, anywhere):
    if not anywhere_catalog.storage.is_local:
        pytest.skip("of a lake on disk")
    register(anywhere_catalog, range(30))
    committed(anywhere_catalog, OLD, "g0")
    process = child(fill_the_disk, anywhere)
    process.join(60)
    assert process.exitcode == 0
    assert content(anywhere_catalog) == expected(OLD | NEW)
    assert errors(anywhere_catalog) == []
