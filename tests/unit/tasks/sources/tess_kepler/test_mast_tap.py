"""Many targets at MAST: searched over TAP, they have what the portal finds; an answer that is not all is not taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox.heasarc import offset
from deployments.sandbox.mast_caom import HARD_LIMIT, TAP_PATH
from deployments.sandbox.mast_stars import NAMES, star
from deployments.sandbox.server import Sandbox
from deployments.sandbox.tess_kepler import DOWNLOAD, INVOKE, Service
from lake.errors import ArchiveError, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.sky import hpx29, separation_arcsec
from lake.settings import Settings, load_settings
from tasks.sources.base import Granule
from tasks.sources.tess_kepler import archive as tess_kepler
from tasks.sources.tess_kepler import mast_tap
from tasks.sources.tess_kepler.archive import ARCHIVE, plan
from tasks.sources.tess_kepler.mast_choice import AUTHORS
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_search import PORTAL_TARGETS, search
from tasks.sources.tess_kepler.mast_splits import Question, Searches
from tasks.sources.tess_kepler.mast_tap import names_adql, ranges, tap_url

SEED = 3
# All over the sky, and where coordinates are special.
PLACES = [((7.0 + 31 * n) % 360, 85 * np.sin(n)) for n in range(26)]
WRAPPED, POLE, CROWD = (0.00001, 10.0), (123.0, 89.9999), (77.3582, 5.6931)
IDS = {"TIC": [1001, 1002, 77], "KIC": [1001], "EPIC": [1003, 1004]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("mast_tap")
    with Sandbox.start(root, archives=["tess_kepler"], seed=SEED, scale=0.01, targets=PLACES) as box:
        service: Service = box.services["tess_kepler"]
        for kind, target, sequence, place in (
            ("spoc", 1001, 1, CROWD),
            ("spoc_fast", 1001, 1, CROWD),
            ("tess_spoc", 1001, 2, CROWD),
            ("qlp", 1001, 3, (CROWD[0], CROWD[1] + 9 / 3600)),  # found by its number alone
            ("spoc", 1002, 1, (CROWD[0], CROWD[1] + 0.9 / 3600)),
            ("qlp", 1005, 1, (CROWD[0], CROWD[1] + 1.2 / 3600)),  # beyond the radius
            ("kepler", 1001, 1, WRAPPED),
            ("kepler_short", 1001, 2, WRAPPED),
            ("k2", 1003, 5, POLE),
            ("everest", 1003, 5, POLE),
            ("k2sff", 1004, 6, POLE),
        ):
            service.add(star(kind, target, sequence, place, n=service.n))
        yield box


@pytest.fixture
def box(served: Sandbox) -> Iterator[Sandbox]:
    served.requests.clear()
    yield served
    served.clear_faults()
    served.services["tess_kepler"].caom.hard_limit = HARD_LIMIT


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(tess_kepler, "SEARCHES", Searches())
    return load_settings(
        url=str(tmp_path),
        endpoints=dict(box.endpoints),
        timeout_s=30.0,
        retries=0,
        retry_delay_s=0.0,
        cache_dir=tmp_path / "cache",
    )


def portal_alone(settings: Settings) -> Settings:
    return settings.model_copy(update={"endpoints": {**settings.endpoints, "mast_tap": ""}})


def asked(box: Sandbox) -> Counter[str]:
    """Count requests by what they are for, and forget them."""
    kinds = {INVOKE: "portal", TAP_PATH: "tap", DOWNLOAD: "files"}
    counts = Counter(kinds[box.prefix_of(seen.path.split("?")[0]) or ""] for seen in box.requests)
    box.requests.clear()
    return counts


def found_at(box: Sandbox, settings: Settings, places: list[tuple[float, float]], **more: Any) -> list[Found]:
    at = np.array(places, float).reshape(-1, 2)
    ids = more.pop("ids", {})
    return search(box.url(), settings, ids, (at[:, 0], at[:, 1]), more.pop("radius", 1.0), "tess_kepler", **more)


def ordered(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda file: file.uri)


def granule(places: list[tuple[float, float]], names: list[str | None] | None = None) -> Granule:
    ra, dec = (np.array(values) for values in zip(*places, strict=True))
    pixel = hpx29(ra, dec)
    table = pa.table(
        {
            "target_id": pixel,
            "name": pa.array(names or [None] * len(ra), pa.string()),
            "ra": ra,
            "dec": dec,
            "hpx29": pixel,
        }
    )
    targets = TABLES["targets"].cast(table).sort_by("hpx29")
    return Granule("tess_kepler", ARCHIVE.release, ARCHIVE.with_defaults(None), targets)


# --- the same by both ways ---


@pytest.mark.parametrize("radius", [1.0, 10.0])
@pytest.mark.parametrize("authors", [tuple(AUTHORS), ("QLP", "K2")])
def test_both_ways_find_the_same_files(
    box: Sandbox, reached: Settings, radius: float, authors: tuple[str, ...]
) -> None:
    places = [*PLACES, CROWD, (359.99999, 10.0), (303.0, 89.9999), (1.0, 1.0)]
    asked_for: dict[str, Any] = {"ids": IDS, "radius": radius, "authors": authors}
    by_tap = found_at(box, reached, places, **asked_for)
    assert asked(box) == {"tap": 2}, "one query for all places, one for all light curves"
    by_portal = found_at(box, portal_alone(reached), places, **asked_for)
    assert asked(box) == {"portal": 3 * 2}, "thirty-six targets, twenty at a time"
    assert ordered(by_tap) == ordered(by_portal)
    assert len(by_tap) > 30
    assert {file.named.pipeline.name for file in by_tap} == {AUTHORS[author].name for author in authors}
    assert all(file.size and file.cadence_s and file.ra is not None for file in by_tap)


def test_both_ways_fill_the_lake_with_the_same(
    box: Sandbox, reached: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [*PLACES[:-1], CROWD, WRAPPED]
    one = granule(places, [None] * (len(places) - 1) + ["TIC 1001"])
    by_tap = tess_kepler.fetch(one, reached)
    seen = asked(box)
    by_portal = tess_kepler.fetch(one, portal_alone(reached))
    assert seen["tap"] == 2
    assert seen["files"] == by_tap.exposures.num_rows > 60
    assert asked(box) == {"portal": 6}, "the files are in the cache"
    for name in ("sources", "matches", "lightcurves", "exposures"):
        tables = [TABLES[name].cast(getattr(result, name)) for result in (by_tap, by_portal)]
        assert tables[0].equals(tables[1]), name
        assert tables[0].num_rows > 0
    assert by_tap.remark == by_portal.remark


def test_few_targets_are_searched_by_the_portal(box: Sandbox, reached: Settings) -> None:
    few = found_at(box, reached, PLACES[:PORTAL_TARGETS])
    assert asked(box) == {"portal": 3}
    more = found_at(box, reached, PLACES[: PORTAL_TARGETS + 1])
    assert asked(box) == {"tap": 2}
    assert {file.uri for file in few} < {file.uri for file in more}


def test_places_and_names_go_in_portions(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_at(box, reached, PLACES)
    asked(box)
    monkeypatch.setattr(mast_tap, "PLACES", 10)
    monkeypatch.setattr(mast_tap, "NAMES", 20)
    assert ordered(found_at(box, reached, PLACES)) == ordered(whole)
    names = {file.named.target for file in whole}
    assert asked(box)["tap"] == 3 + -(-len(names) // 20)
    assert found_at(box, reached, [(200.0 + n, 1.0) for n in range(21)]) == []
    assert asked(box) == {"tap": 3}, "where nothing was observed, no names are asked for"


def test_the_address_is_a_setting(box: Sandbox, reached: Settings) -> None:
    assert tap_url("https://mast.stsci.edu/", load_settings()) == "https://mast.stsci.edu/vo-tap/api/v0.1/caom"
    assert tap_url(box.url(), reached) == box.url(TAP_PATH)
    assert tap_url(box.url(), portal_alone(reached)) == ""
    elsewhere = reached.model_copy(update={"endpoints": {**reached.endpoints, "mast_tap": box.url("/elsewhere")}})
    with pytest.raises(ArchiveError, match="HTTP 404") as caught:
        found_at(box, elsewhere, PLACES)
    assert caught.value.endpoint == box.url("/elsewhere")
    assert "LIGHTLAKE_ENDPOINTS__MAST_TAP" in str(caught.value)


def test_the_setting_may_be_empty_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__MAST_TAP", "")
    assert tap_url("https://mast.stsci.edu", load_settings()) == ""


# --- answers that are not all, and those that are none ---


@pytest.mark.parametrize("rows", [5, 60])
def test_an_answer_that_overflows_is_not_taken(box: Sandbox, reached: Settings, rows: int) -> None:
    """Of places, and of names, whose answer has more rows: there are several files to an observation of Kepler's."""
    box.services["tess_kepler"].caom.hard_limit = rows
    with pytest.raises(TruncatedAnswer, match=f"cut at {rows} rows"):
        found_at(box, reached, PLACES)


def test_as_many_rows_as_the_service_gives_are_not_taken_for_all(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not it says so."""
    assert mast_tap.MAXREC == HARD_LIMIT
    monkeypatch.setattr(box.services["tess_kepler"].caom, "silent_cap", 30)
    monkeypatch.setattr(mast_tap, "MAXREC", 30)
    with pytest.raises(TruncatedAnswer, match="cut at 30 rows"):
        found_at(box, reached, PLACES)


@pytest.mark.parametrize("kind", ["truncate", "short", "reset", "garbage", "status:504"])
def test_a_broken_answer_is_not_taken_and_one_query_is_repeated(box: Sandbox, reached: Settings, kind: str) -> None:
    box.fault(TAP_PATH, kind)
    with pytest.raises(ArchiveError) as caught:
        found_at(box, reached, PLACES)
    assert caught.value.transient
    assert "LIGHTLAKE_ENDPOINTS__MAST_TAP= (empty)" in (caught.value.hint or "")
    box.clear_faults()
    whole = found_at(box, reached, PLACES)
    asked(box)
    box.fault(TAP_PATH, kind)
    again = reached.model_copy(update={"retries": 1})
    assert ordered(found_at(box, again, PLACES)) == ordered(whole)
    assert asked(box) == {"tap": 3}, "the query that failed alone is sent again"


def test_an_error_of_the_service_under_status_200(box: Sandbox, reached: Settings) -> None:
    box.services["tess_kepler"].caom.fault("error-200")
    with pytest.raises(ArchiveError, match="the database went away") as caught:
        found_at(box, reached, PLACES)
    assert caught.value.transient


def test_rows_without_a_place_take_no_other_with_them(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_as_they_are = mast_tap.Caom.near

    def near(self: mast_tap.Caom, *where: Any) -> list[dict[str, Any]]:
        first, *rest = rows_as_they_are(self, *where)
        return [first | {"s_ra": None}, *rest]

    monkeypatch.setattr(mast_tap.Caom, "near", near)
    remarks: list[str] = []
    assert found_at(box, reached, PLACES, remarks=remarks)
    assert remarks == ["observations without a place: 1"]


# --- granules ---


def test_a_granule_that_is_split_is_searched_once(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tess_kepler.fetch(granule(PLACES), reached)
    assert asked(box)["tap"] == 2
    monkeypatch.setattr(tess_kepler, "MOST_BYTES", 120_000)
    waiting, parts = [granule(PLACES)], []
    while waiting:
        one = waiting.pop(0)
        try:
            parts.append(tess_kepler.fetch(one, reached))
        except TruncatedAnswer:
            waiting = [*one.halves(), *waiting]
    assert len(parts) > 4
    assert asked(box) == {"tap": 2}, "once for all parts, and the files are in the cache"
    rows = [row for part in parts for row in map(repr, part.lightcurves.to_pylist())]
    assert sorted(rows) == sorted(map(repr, whole.lightcurves.to_pylist()))
    half = granule(PLACES).halves()[0]
    monkeypatch.setattr(tess_kepler, "MOST_BYTES", 10**9)
    tess_kepler.fetch(half, reached)
    assert asked(box) == {"portal": 3}, "what is asked anew is searched anew"
    monkeypatch.setattr(tess_kepler, "MOST_BYTES", 120_000)
    with pytest.raises(TruncatedAnswer):
        tess_kepler.fetch(granule(PLACES), reached)
    assert asked(box) == {"tap": 2}, "as is the whole"


def test_a_service_that_cuts_every_answer_leaves_the_search_to_the_portal(box: Sandbox, reached: Settings) -> None:
    """Granules are split until they are small enough for it; nothing is lost on the way."""
    whole = tess_kepler.fetch(granule(PLACES), reached)
    asked(box)
    box.services["tess_kepler"].caom.hard_limit = 1
    with pytest.raises(TruncatedAnswer):
        tess_kepler.fetch(granule(PLACES), reached)
    parts = [tess_kepler.fetch(part, reached) for part in granule(PLACES).halves()]
    assert asked(box) == {"tap": 1, "portal": 6}
    assert sum(part.lightcurves.num_rows for part in parts) == whole.lightcurves.num_rows


def test_what_was_found_is_taken_once_by_each_part_and_not_kept_for_ever() -> None:
    now = [0.0]
    searches = Searches(lambda: now[0])
    whole = Question.of(("url", 1.0), [("TIC", 1), ("TIC", 2)], [10.0, 20.0], [1.0, 2.0])
    part, rest = (Question.of(("url", 1.0), [("TIC", number)], [10.0 * number], [float(number)]) for number in (1, 2))
    answer: tuple[list[Found], list[str]] = ([], ["a remark"])
    searches.keep(whole, answer)
    assert searches.find(part) is searches.find(rest) is answer
    assert searches.find(whole) is None
    for other in (
        Question.of(("url", 2.0), [("TIC", 1)], [20.0], [2.0]),
        Question.of(("url", 1.0), [("KIC", 1)], [20.0], [2.0]),
        Question.of(("url", 1.0), [("TIC", 1)], [20.0], [3.0]),
    ):
        assert searches.find(other) is None
    searches.forget(replace(rest, how=("url", 2.0)))
    searches.forget(part)
    assert searches.find(part) is None
    assert searches.find(rest) is answer
    now[0] = 3600.0
    assert searches.find(rest) is None


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1]), (20, [20]), (50, [16, 17, 17]), (100, [20] * 5), (101, [50, 51]), (500, [100] * 5)]
)
def test_few_targets_are_shared_out_and_many_searched_together(n: int, sizes: list[int]) -> None:
    targets = granule([(n * 0.3, 10.0) for n in range(n)]).targets
    parts = plan(ARCHIVE, targets, load_settings(), ARCHIVE.with_defaults(None))
    assert [part.targets.num_rows for part in parts] == sizes
    assert pa.concat_tables([part.targets for part in parts]).equals(targets)
    assert (max(sizes) > PORTAL_TARGETS) == (n > ARCHIVE.batch_size)


# --- queries ---


@given(
    ra=st.floats(0, 360),
    dec=st.floats(-90, 90),
    reach=st.sampled_from([1 / 3600, 10 / 3600, 1.0]),
    angle=st.floats(0, 360),
    share=st.floats(0, 1),
)
def test_a_circle_is_within_its_ranges(ra: float, dec: float, reach: float, angle: float, share: float) -> None:
    lon, lat = (
        float(value[0]) for value in offset(np.array([[ra, dec]]), np.array([share * reach]), np.array([angle]))
    )
    if separation_arcsec(ra, dec, lon, lat) > reach * 3600:
        return
    (south, north), around = ranges(ra, dec, reach)
    margin = 1e-9
    assert south - margin <= lat <= north + margin
    assert any(west - margin <= lon % 360 <= east + margin for west, east in around)
    assert all(0 <= west <= east <= 360 for west, east in around)


def test_names_are_quoted_and_all_light_curves_asked_for() -> None:
    assert "('kplr000001001', 'it''s')" in names_adql(["kplr000001001", "it's"], AUTHORS)
    assert "LIKE '%lc.fits%'" in names_adql(["1"], ["QLP"])
    assert all("lc.fits" in name for name in NAMES.values())
