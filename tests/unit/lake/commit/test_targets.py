"""Registering targets: one row per place, one label per sample that names it, all or nothing."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from helpers.granules import count, errors
from hypothesis import given
from hypothesis import strategies as st

import lake.commit.transaction
from lake.commit.targets import Added, TargetList, _identify, add_lists, add_targets
from lake.errors import ConfigurationError
from lake.science.sky import hpx29, separation_arcsec
from lake.store.catalog import Catalog
from lake.store.storage import Storage

ARCSEC = 1 / 3600


def _list(*places, **more):
    ra, dec = zip(*places, strict=True)
    return pa.table({"ra": list(map(float, ra)), "dec": list(map(float, dec)), **more})


def test_the_first_position_gives_the_id_for_ever(catalog):
    assert add_targets(catalog, _list((10, 20), name=["A"]), "s1") == Added(1, 1, 0, 1)
    assert add_targets(catalog, _list((10, 20 + 0.9 * ARCSEC), name=["B"]), "s2") == Added(1, 0, 1, 1)
    assert add_targets(catalog, _list((10, 20 + 1.1 * ARCSEC), name=["C"]), "s2") == Added(1, 1, 0, 1)
    rows = catalog.cursor().execute("SELECT target_id, hpx29, name FROM targets ORDER BY dec").fetchall()
    ids = hpx29([10, 10], [20, 20 + 1.1 * ARCSEC]).tolist()
    assert rows == [(ids[0], ids[0], "A"), (ids[1], ids[1], "C")]
    assert errors(catalog) == []


def test_across_the_ra_wrap_and_at_the_pole(catalog):
    add_targets(catalog, _list((0.0001, 0), (10, 90)), "s")
    assert add_targets(catalog, _list((359.99995, 0), (200, 90 - 0.5 * ARCSEC)), "s").new == 0


def test_a_list_is_taken_in_its_order(catalog):
    """Of places in a row, 0.6 arcsec apart, the second joins the first, and the third is new."""
    row = [(10, k * 0.6 * ARCSEC) for k in range(5)]
    assert add_targets(catalog, _list(*row), "s") == Added(5, 3, 0, 3)
    kept = catalog.cursor().execute("SELECT round(dec * 3600, 1) FROM targets ORDER BY dec").fetchall()
    assert kept == [(0.0,), (1.2,), (2.4,)]


def test_a_row_joins_the_nearest_target(catalog):
    add_targets(catalog, _list((10, 0), (10, 1.5 * ARCSEC)), "s", radius_arcsec=1)
    add_targets(catalog, _list((10, 0.9 * ARCSEC)), "near")
    near = catalog.cursor().execute("SELECT target_id FROM labels WHERE sample = 'near'").fetchall()
    assert near == [(int(hpx29(10, 1.5 * ARCSEC)),)]


def test_labels_are_many_to_many(catalog):
    places = ((10, 0), (11, 0), (12, 0))
    add_targets(catalog, _list(*places, label=["CLAGN", None, None]), "s1", label="AGN", bibcode="2020X")
    add_targets(catalog, _list(*places[1:]), "s2")
    rows = catalog.cursor().execute("SELECT sample, label, bibcode FROM labels ORDER BY ALL").fetchall()
    assert rows == [
        ("s1", "AGN", "2020X"),
        ("s1", "AGN", "2020X"),
        ("s1", "CLAGN", "2020X"),
        ("s2", "s2", None),
        ("s2", "s2", None),
    ]
    assert errors(catalog) == []


def test_the_same_list_again_changes_nothing(catalog):
    listed = _list((10, 0), (11, 0), name=["A", None], row_in_catalogue=[1, 2])
    add_targets(catalog, listed, "s", catalogue="a.csv", bibcode="2020X")
    before = catalog.cursor().execute("FROM ducklake_current_snapshot('lake')").fetchall()
    assert add_targets(catalog, listed, "s", catalogue="a.csv") == Added(2, 0, 2, 0)
    assert catalog.cursor().execute("FROM ducklake_current_snapshot('lake')").fetchall() == before
    assert errors(catalog) == []


def test_an_empty_list(catalog):
    assert add_targets(catalog, _list((1, 1)).slice(1), "s") == Added(0, 0, 0, 0)


def test_places_in_one_pixel_are_one_target_unless_each_row_is_one(catalog):
    near = _list((10, 0), (10, 1e-8), (10, 0), name=["A", "B", "C"], row_in_catalogue=[1, 2, 3])
    add_targets(catalog, near, "s", radius_arcsec=0.001)
    assert count(catalog, "targets") == 1
    assert add_targets(catalog, near, "own", catalogue="a.csv", radius_arcsec=0) == Added(3, 3, 0, 3)
    assert add_targets(catalog, near, "own", catalogue="a.csv", radius_arcsec=0) == Added(3, 0, 3, 0)
    rows = catalog.cursor().execute("SELECT name, hpx29, dec FROM targets ORDER BY target_id").fetchall()
    assert sorted(name for name, _, _ in rows) == ["A", "A", "B", "C"]
    assert [pixel for _, pixel, _ in rows] == hpx29([10] * 4, [dec for _, _, dec in rows]).tolist()
    assert errors(catalog) == []


@given(
    places=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=40),
    known=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), max_size=5),
)
def test_rows_join_the_nearest_target_that_is_known_by_then(places, known):
    there = _list(*((10 + x * ARCSEC, y * ARCSEC) for x, y in known)) if known else _list((10, 80))
    there = there.append_column("target_id", pa.array(hpx29(there["ra"].to_numpy(), there["dec"].to_numpy())))
    rows = _list(*((10 + x * ARCSEC, y * ARCSEC) for x, y in places))
    ids, is_new = _identify(rows, there, 1.0)
    at = list(zip(there["ra"].to_pylist(), there["dec"].to_pylist(), there["target_id"].to_pylist(), strict=True))
    for i, (ra, dec) in enumerate(zip(rows["ra"].to_pylist(), rows["dec"].to_pylist(), strict=True)):
        far = [float(separation_arcsec(ra, dec, *place[:2])) for place in at]
        assert is_new[i] == (min(far) > 1.0)
        if is_new[i]:
            at.append((ra, dec, int(ids[i])))
        else:
            # Of two at one distance, but for the rounding, either.
            assert ids[i] in [place[2] for place, d in zip(at, far, strict=True) if d < min(far) + 1e-6]


def test_many_rows_of_one_place(catalog):
    """All pairs of them would take 20 GB."""
    n = 30_000
    ra = 10 + np.random.default_rng(1).normal(0, 0.1 * ARCSEC, n)
    ids, is_new = _identify(
        pa.table({"ra": ra, "dec": np.zeros(n)}),
        catalog.cursor().execute("SELECT target_id, ra, dec FROM targets").to_arrow_table(),
        1.0,
    )
    assert (len(np.unique(ids)), int(is_new.sum())) == (1, 1)


@pytest.mark.parametrize("place", [(np.nan, 0), (10, 91), (np.inf, 0)])
def test_a_place_that_is_none_is_refused_and_nothing_is_added(catalog, place):
    with pytest.raises(ConfigurationError, match="no position on the sky"):
        add_targets(catalog, _list((10, 0), place), "s")
    assert count(catalog, "targets") == count(catalog, "labels") == 0


def test_nothing_is_half_added(catalog, monkeypatch):
    with monkeypatch.context() as patch:
        original = lake.commit.transaction.add_file
        patch.setattr(
            lake.commit.transaction, "add_file", lambda c, t, f: original(c, t, f) if t == "targets" else 1 / 0
        )
        with pytest.raises(ZeroDivisionError):
            add_targets(catalog, _list((10, 0)), "s")
    assert count(catalog, "targets") == count(catalog, "labels") == 0
    assert list(catalog.storage.data.rglob("*.parquet")) == []
    assert [path for path in catalog.storage.staging.rglob("*") if path.is_file()] == []
    assert add_targets(catalog, _list((10, 0)), "s").new == 1


def test_a_row_keeps_its_name_whatever_target_it_is(catalog):
    """Two names within the radius, of one list or of two, are two names of one target."""
    near = (10, 20 + 0.5 * ARCSEC)
    assert add_targets(catalog, _list((10, 20), near, near, name=["A", "B", "B"]), "s1") == Added(3, 1, 0, 2)
    assert add_targets(catalog, _list(near, near, name=["C", None]), "s2") == Added(2, 0, 1, 2)
    assert add_targets(catalog, _list((10, 20), near, name=["A", "B"]), "s1") == Added(2, 0, 1, 0)
    cursor = catalog.cursor()
    assert cursor.execute("SELECT name FROM targets").fetchall() == [("A",)]
    labels = cursor.execute("SELECT sample, name FROM labels ORDER BY ALL").fetchall()
    assert labels == [("s1", "A"), ("s1", "B"), ("s2", "C"), ("s2", None)]
    assert cursor.execute("SELECT name FROM target_names ORDER BY ALL").fetchall() == [("A",), ("B",), ("C",)]
    assert errors(catalog) == []


def test_lists_together_are_what_they_are_one_after_the_other(catalog, template, settings, tmp_path):
    """Later lists know the targets and labels of the earlier ones, of the same transaction."""
    rng = np.random.default_rng(11)
    centres = rng.uniform(0, 300, 12), rng.uniform(-60, 60, 12)
    lists = []
    for number in range(5):
        at = rng.integers(0, 12, 8)
        ra, dec = (c[at] + rng.uniform(-0.8, 0.8, 8) * ARCSEC for c in centres)
        rows = pa.table(
            {"ra": ra, "dec": dec, "row_in_catalogue": np.arange(8), "name": [f"{at[i]}" for i in range(8)]}
        )
        lists.append(TargetList(rows, f"s{number % 3}", label="x", catalogue="list", has_stable_rows=number % 2 == 0))
    other = tmp_path / "other"
    shutil.copytree(template, other)
    one_by_one = Catalog(Storage(other), settings.model_copy(update={"url": str(other), "catalog": None}))
    together = add_lists(catalog, lists)
    assert [add_lists(one_by_one, [one])[0] for one in lists] == together
    for table in ("targets", "labels"):
        query = f"SELECT * EXCLUDE (added_at) FROM {table} ORDER BY ALL"
        rows = [one.cursor().execute(query).fetchall() for one in (catalog, one_by_one)]
        assert rows[0] == rows[1]
        assert rows[0]
    one_by_one.close()
    assert errors(catalog) == []


def test_bibcode_and_catalogue_may_differ_by_row(catalog):
    rows = _list(
        (1, 1), (2, 2), bibcode=["2020A", None], catalogue=[None, "T"], name_in_catalogue=["n", None], name=["A", "B"]
    )
    add_lists(catalog, [TargetList(rows, "s", catalogue="C", bibcode="2021B")])
    got = catalog.cursor().execute("SELECT bibcode, catalogue, name FROM labels ORDER BY ALL").fetchall()
    assert got == [("2020A", "C", "n"), ("2021B", "T", "B")]
    names = catalog.cursor().execute("SELECT name FROM targets ORDER BY ALL").fetchall()
    assert names == [("A",), ("B",)]
    assert add_lists(catalog, []) == []
