"""Quasars of SDSS: the same rows every time, whole pages in a stated order, ids that are no floating-point numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.granules import errors
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.sandbox.sdss import SkyServer
from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError, ConfigurationError
from lake.settings import Settings, load_settings
from tasks.samples import sdss
from tasks.samples.collect import add_collected, collect
from tasks.samples.sample import Collected

QUASARS = 2_000


@pytest.fixture(scope="module")
def server() -> Iterator[SkyServer]:
    with Sandbox() as box:
        made = SkyServer(box, QUASARS, seed=5)
        made.box = box
        yield made
        made.close()


@pytest.fixture
def reached(server: SkyServer, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(sdss, "PAGE_ROWS", 300)
    server.faults.waiting.clear()
    return settings.model_copy(update={"endpoints": {"sdss": server.url}, "retries": 1, "retry_delay_s": 0.0})


def quasars(settings: Settings, **parameters: object) -> Collected:
    (got,) = collect("sdss", parameters, settings)
    return got


def ids(got: Collected) -> list[int]:
    return [int(text) for text in got.targets["name_in_catalogue"].to_pylist()]


def test_the_first_by_specobjid_over_several_pages(reached, server):
    all_of_them = quasars(reached, num=2 * QUASARS)
    n = all_of_them.targets.num_rows
    assert 0.85 * QUASARS < n <= 1.1 * QUASARS
    assert ids(all_of_them) == sorted(set(ids(all_of_them)))
    assert max(ids(all_of_them)) > 2**63, "larger than signed integers of 64 bits"
    for num in (1, 299, 300, 301, 650):
        got = quasars(reached, num=num)
        assert ids(got) == ids(all_of_them)[:num]
        assert got.requests == 1 + -(-num // 300)
        assert got.expected == num
    assert all("ORDER BY" in query for query in server.queries if "TOP" in query)


@pytest.mark.parametrize("seed", [0, 1, 20210126])
def test_a_seed_draws_the_same_ones_every_time(reached, seed):
    drawn = quasars(reached, num=700, seed=seed)
    assert ids(quasars(reached, num=700, seed=seed)) == ids(drawn)
    assert ids(quasars(reached, num=50, seed=seed)) == ids(drawn)[:50]
    assert ids(quasars(reached, num=700, seed=seed + 1)) != ids(drawn)
    assert len(set(ids(drawn))) == 700
    everything = quasars(reached, num=2 * QUASARS, seed=seed)
    assert sorted(ids(everything)) == ids(quasars(reached, num=2 * QUASARS))
    # A draw is of the whole survey: the mean place in the list of 700 of n is near the middle.
    places = np.searchsorted(sorted(ids(everything)), ids(drawn)) / everything.targets.num_rows
    assert abs(places.mean() - 0.5) < 5 * 0.29 / np.sqrt(700)


def test_redshifts_lie_between_the_limits(reached):
    got = quasars(reached, num=QUASARS, zmin=0.5, zmax=2.0, seed=7)
    z = got.targets["redshift"].to_numpy()
    assert z.min() > 0.5
    assert z.max() < 2.0
    assert any("there are" in remark for remark in got.remarks)
    with pytest.raises(ArchiveError, match="no quasars with redshifts between 7 and 8"):
        quasars(reached, zmin=7.0, zmax=8.0)


def test_what_is_added_is_found_by_designation_and_specobjid(reached, catalog):
    got = quasars(reached, num=20, seed=1, release=17)
    (added,) = add_collected(catalog, [got])
    assert (added.new, added.labels) == (20, 20)
    names = catalog.cursor().execute("SELECT name FROM target_names").fetchall()
    assert {(str(one),) for one in ids(got)} <= set(names)
    assert {(name,) for name in got.targets["name"].to_pylist()} <= set(names)
    rows = catalog.cursor().execute("SELECT DISTINCT sample, label, catalogue FROM labels").fetchall()
    assert rows == [("sdss", "SDSS", "SDSS DR17 SpecObj")]
    assert "/dr17/" in got.endpoint
    (again,) = add_collected(catalog, [quasars(reached, num=30, seed=1, release=17)])
    assert (again.new, again.known, again.labels) == (10, 20, 10)
    assert errors(catalog) == []


@pytest.mark.parametrize("kind", ["short", "truncate", "garbage", "status:503"])
def test_a_page_that_is_not_whole_is_asked_again(reached, server, kind):
    want = ids(quasars(reached, num=650))
    server.faults.waiting.clear()
    server.box.fault("/skyserver", kind)
    assert ids(quasars(reached, num=650)) == want


def test_a_page_cut_at_the_end_of_a_line_is_noticed(reached, server):
    server.faults.waiting += ["", "", "cut", "cut"]
    with pytest.raises(ArchiveError, match="150 of 300 rows"):
        quasars(reached, num=650)


def test_other_names_in_capitals_are_the_same_columns(reached, server):
    want = ids(quasars(reached, num=10))
    server.faults.waiting += ["capitals", "capitals"]
    assert ids(quasars(reached, num=10)) == want


@given(st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=50, unique=True), st.integers(0, 2**31 - 1))
def test_the_number_of_a_row_is_what_its_sql_says(values, seed):
    """In whole numbers of any length, as in those of 64 bits here and there."""
    order = sdss.Order(seed)
    got = order.numbers(np.array(values, np.uint64)).tolist()
    prime = 2**31 - 1
    assert got == [((v % prime) ** 2 % prime * order.factor + v % prime) % prime for v in values]
    largest = (prime - 1) * order.factor + prime - 1
    assert largest < 2**63


@given(st.floats(0, 360, exclude_max=True), st.floats(-90, 90))
@example(359.99999999999994, 0.0)
@example(0.0, -90.0)
def test_a_designation_carries_its_position(ra, dec):
    from lake.science.sky import separation_arcsec
    from tasks.samples.answers import position_in

    (name,) = sdss.designations(np.array([ra]), np.array([dec]))
    place = position_in(name)
    assert place is not None
    assert separation_arcsec(*place, ra, dec) < 0.2


def test_parameters_that_cannot_be(tmp_path):
    settings = load_settings(url=str(tmp_path))
    for wrong in ({"num": -1}, {"seed": -1}, {"release": 3}, {"zmax": float("nan")}):
        with pytest.raises(ConfigurationError):
            quasars(settings, **wrong)
