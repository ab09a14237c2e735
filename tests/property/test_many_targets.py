"""Many targets, or cones, by one call are what as many calls return, exactly, and cost the same few queries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from helpers.granules import committed, positions, register, target_ids
from helpers.profiles import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from lake.query import Lake

FEW = settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture])
TARGETS = 16
ARCHIVES = ("ztf", "wise")


def _fill(catalog: Any) -> None:
    """Targets with sources in one archive, the other, or both; the last two have none."""
    register(catalog, range(TARGETS))
    committed(catalog, {**dict.fromkeys(range(10), 1), 4: 3}, "g0", targets=range(TARGETS))
    committed(catalog, range(6, 14), "g1", archive="wise", release="neo7")


@pytest.fixture
def held(prepared: Any, request: pytest.FixtureRequest) -> Lake:
    prepared(_fill)
    lake: Lake = request.getfixturevalue("lake")
    return lake


def place(number: int) -> tuple[float, float]:
    ra, dec = positions([number])
    return float(ra[0]), float(dec[0])


def called(number: int, how: int) -> Any:
    """One of the ways to call a target."""
    ra, dec = place(number)
    return [f"T{number}", f"t{number}", target_ids([number])[0], (ra, dec), f" T{number} "][how]


asked = st.lists(st.tuples(st.integers(0, TARGETS - 1), st.integers(0, 4)), min_size=1, max_size=8)
some = {
    "archive": st.one_of(st.none(), st.sampled_from(ARCHIVES), st.permutations(ARCHIVES)),
    "band": st.one_of(st.none(), st.sampled_from(["g", "r"]), st.just(["g", "r"])),
    "good": st.booleans(),
}


@FEW
@given(which=asked, options=st.fixed_dictionaries(some))
def test_many_targets_are_as_many_calls(held: Lake, which: list[tuple[int, int]], options: dict[str, Any]) -> None:
    targets = [called(*one) for one in which]
    together = held.light_curve(targets, **options)
    numbers = list(dict.fromkeys(number for number, _ in which))
    loop = [held.light_curve(called(number, 0), **options) for number in numbers]
    parts = [
        table.add_column(0, "name", pa.array([f"T{number}"] * len(table), pa.string())).add_column(
            0, "target_id", pa.array([target_ids([number])[0]] * len(table), pa.int64())
        )
        for number, table in zip(numbers, loop, strict=True)
    ]
    assert together.equals(pa.concat_tables(parts))


@FEW
@given(which=asked, options=st.fixed_dictionaries(some), radius=st.sampled_from([0.5, 3600.0, 200_000.0]))
def test_many_cones_are_as_many_calls(
    held: Lake, which: list[tuple[int, int]], options: dict[str, Any], radius: float
) -> None:
    together = held.cone([called(*one) for one in which], radius_arcsec=radius, **options)
    parts = [
        (table := held.cone(*place(number), radius, **options)).add_column(
            0, "centre", pa.array([centre] * len(table), pa.int64())
        )
        for centre, (number, _) in enumerate(which)
    ]
    assert together.equals(pa.concat_tables(parts))


def test_all_kinds_of_lists_are_the_same(held: Lake) -> None:
    numbers = [3, 8, 1]
    expected = held.light_curve([f"T{number}" for number in numbers])
    assert expected.num_rows == 6 * 4
    ra, dec = positions(numbers)
    for targets in (
        np.array(target_ids(numbers)),
        pa.array(target_ids(numbers)),
        np.stack([ra, dec], axis=-1),
        SkyCoord(ra, dec, unit="deg").galactic,
        (f"T{number}" for number in numbers),
    ):
        assert held.light_curve(targets).equals(expected)
    cones = held.cone(ra, dec, 1.0)
    assert cones.equals(held.cone(SkyCoord(ra, dec, unit="deg"), radius_arcsec=1.0))
    assert sorted(set(cones["centre"].to_pylist())) == [0, 1, 2]


def test_no_targets_are_no_rows(held: Lake) -> None:
    none = held.light_curve([])
    assert none.num_rows == 0
    assert none.schema.equals(held.light_curve(["T1", "T2"]).schema)
    assert held.cone([], radius_arcsec=1.0).num_rows == 0
    assert held.light_curve("T1", archive=[]).num_rows == 0


def test_many_targets_are_as_many_queries_as_two(held: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    run = Lake.run

    def counted(self: Lake, *arguments: Any, **more: Any) -> pa.Table:
        counts[-1] += 1
        return run(self, *arguments, **more)

    monkeypatch.setattr(Lake, "run", counted)
    for n in (2, 12):
        counts.append(0)
        held.light_curve([f"T{number}" for number in range(n)])
        counts.append(0)
        held.light_curve([place(number) for number in range(n)])
        counts.append(0)
        held.cone([place(number) for number in range(n)], radius_arcsec=1.0)
    assert counts[:3] == counts[3:]
    assert max(counts) <= 5


def test_what_is_unknown_is_named(held: Lake) -> None:
    for ask, message in (
        (lambda: held.light_curve(["T1", "nosuch", "T2", "Mrk 1"]), "2 of 4 targets: 'nosuch', 'Mrk 1'"),
        (lambda: held.light_curve([1, 2]), "not in the lake, 2 of 2 targets: 1, 2"),
        (lambda: held.light_curve([(10.5, 20.0)]), r"10.500000 \+20.000000"),
        (lambda: held.light_curve((700.0, 20.0)), "no position"),
        (lambda: held.light_curve("T1", band=["g", "nosuch"]), "unknown band 'nosuch'"),
        (lambda: held.light_curve("T1", archive=["ztf", "zft"]), "unknown archive 'zft'"),
        (lambda: held.cone(place(1)), "a cone needs a radius"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ask()


def test_a_name_of_several_targets_among_many_is_an_error(held: Lake) -> None:
    from lake.commit.targets import add_targets

    ra, dec = positions([2])
    add_targets(held.catalog, pa.table({"ra": ra + 1, "dec": dec, "name": ["T2"]}), "more")
    with pytest.raises(ConfigurationError, match="2 targets are named 'T2'"):
        held.light_curve(["T1", "T2"])
