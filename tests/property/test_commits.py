"""Any sequence of commits and compactions leaves what a dictionary would hold."""

import shutil
import tempfile
from pathlib import Path

from helpers.granules import committed, content, count, errors, expected, register, staged
from helpers.profiles import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lake.commit.commit import commit_together
from lake.commit.gather import gather
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage
from lake.upkeep.compaction import compact
from tasks.archives.work import commit_batch

SOURCES = 12
FEW = settings(max_examples=examples(4), derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])

granules = st.dictionaries(st.integers(0, SOURCES - 1), st.integers(1, 4), min_size=1, max_size=5)
steps = st.lists(st.one_of(granules, st.just("compact"), st.just("repeat")), min_size=1, max_size=7)


class _Fresh:
    """A new lake with registered targets, for one example."""

    def __init__(self, template: Path) -> None:
        self.folder = tempfile.TemporaryDirectory()
        url = Path(self.folder.name) / "lake"
        shutil.copytree(template, url)
        self.catalog = Catalog(Storage(url), load_settings(url=str(url)))
        self.catalog.open()

    def __enter__(self) -> Catalog:
        return self.catalog

    def __exit__(self, *_: object) -> None:
        self.catalog.close()
        self.folder.cleanup()


def _run(catalog, script, held=(), first=0):
    held, last = dict(held), None
    for number, step in enumerate(script, first):
        if step == "compact":
            compact(catalog)
        else:
            again = last if step == "repeat" else step
            if again is None:
                continue
            receipt = committed(catalog, again, f"g{sorted(again)}", again=number)
            assert receipt.replaced == sum(1 for s in again if s in held and held[s] != again[s])
            assert receipt.kept == sum(1 for s in again if held.get(s) == again[s])
            held |= again
            last = again
    return held


@FEW
@given(script=steps)
def test_the_lake_holds_what_a_dictionary_would(template, script):
    with _Fresh(template) as catalog:
        register(catalog, range(SOURCES))
        held = _run(catalog, script)
        assert content(catalog) == expected(held)
        assert count(catalog, "statistics") == 2 * len(held)
        assert count(catalog, "matches") == count(catalog, "coverage") == len(held)
        assert errors(catalog) == []


@FEW
@given(
    sets=st.lists(st.sets(st.integers(0, SOURCES - 1), min_size=1, max_size=5), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_unchanged_content_does_not_matter(template, sets, order):
    shuffled = order.sample(sets, len(sets))
    with _Fresh(template) as catalog:
        register(catalog, range(SOURCES))
        held = _run(catalog, [dict.fromkeys(sorted(one), 1) for one in shuffled])
        assert content(catalog) == expected(dict.fromkeys(set().union(*sets), 1))
        files = count(catalog, "files WHERE table_name = 'lightcurves'")
        _run(catalog, [dict.fromkeys(sorted(one), 1) for one in sets], held, first=len(sets))
        assert count(catalog, "files WHERE table_name = 'lightcurves'") == files, "a repeated pull changes nothing"
        assert errors(catalog) == []


# Each granule has targets of its own, and sources and exposures that others may have, too.
BLOCK = 3
answers = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, SOURCES - 1), st.integers(1, 2), max_size=5),
        st.dictionaries(st.sampled_from("abc"), st.integers(58000, 58001), max_size=2),
    ),
    min_size=2,
    max_size=SOURCES // BLOCK,
)


@settings(FEW, max_examples=examples(1))
@given(answers=answers, before=st.integers(2, SOURCES // BLOCK))
@example(answers=[({0: 1}, {}), ({4: 1}, {"a": 58000}), ({0: 1, 7: 1}, {})], before=2)
def test_granules_committed_together_are_as_one_after_the_other(template, answers, before):
    """Whatever is committed together, and if some were, when a run was killed, in another company."""
    every, found = list(range(len(answers))), []
    for groups in ([[one] for one in every], [every], [every[:before], every]):
        with _Fresh(template) as catalog:
            register(catalog, range(SOURCES))
            manifests = [
                staged(catalog, sources, f"g{n}", targets=range(n * BLOCK, (n + 1) * BLOCK), exposures=exposures)
                for n, (sources, exposures) in enumerate(answers)
            ]
            for group in groups:
                if group[-1:] != every[-1:]:  # is killed when its rows are in the lake
                    for manifest, _ in gather(catalog.storage, [manifests[one] for one in group]):
                        commit_together(catalog, manifest)
                else:
                    receipts = commit_batch(str(catalog.storage.root), [manifests[one] for one in group])
                    assert [receipt.granule for receipt in receipts] == [f"g{one}" for one in group]
            assert errors(catalog) == []
            assert not list(catalog.storage.staging.rglob("joined-*/*")) or len(groups) > 1
            cursor = catalog.cursor()
            tables = ("sources", "lightcurves", "statistics", "exposures", "matches", "coverage")
            found.append([cursor.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in tables])
            found[-1].append(cursor.execute("SELECT * EXCLUDE snapshot_id FROM ledger ORDER BY ALL").fetchall())
            cursor.close()
    assert all(one == found[0] for one in found)
