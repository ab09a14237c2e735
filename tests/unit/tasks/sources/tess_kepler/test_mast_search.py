"""The search at MAST: what is asked, what answers mean, and those that are cut, garbled or never come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.sandbox import tess_kepler as stand_in
from deployments.sandbox.mast_stars import star
from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.tess_kepler import INVOKE, Service
from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings, load_settings
from tasks.services.http import Session
from tasks.sources.tess_kepler import mast_portal
from tasks.sources.tess_kepler.mast_choice import source_of
from tasks.sources.tess_kepler.mast_files import Found
from tasks.sources.tess_kepler.mast_portal import rows_of
from tasks.sources.tess_kepler.mast_search import search

HERE, WRAPPED, POLE = (77.3582, 5.6931), (0.00001, 10.0), (123.0, 89.9999)
ROWS = [{"obsid": str(n), "s_ra": float(n), "s_dec": 1.0, "s_region": "CIRCLE"} for n in range(7)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("mast_search")
    with Sandbox.start(root, archives=["tess_kepler"], seed=5, scale=0.02) as box:
        service: Service = box.services["tess_kepler"]
        for kind, target, sequence, place in (
            ("spoc", 1001, 1, HERE),
            ("spoc_fast", 1001, 1, HERE),
            ("qlp", 1001, 2, HERE),
            ("tess_spoc", 1001, 2, HERE),
            ("kepler", 1001, 1, WRAPPED),
            ("kepler", 1001, 2, WRAPPED),
            ("kepler_short", 1001, 2, WRAPPED),
            ("k2", 1001, 5, POLE),
            ("everest", 1001, 5, POLE),
            ("k2sff", 1001, 6, POLE),
            ("spoc", 1002, 1, (HERE[0], HERE[1] + 1.5 / 3600)),
        ):
            service.add(star(kind, target, sequence, place, n=5))
        yield box


@pytest.fixture
def box(served: Sandbox) -> Iterator[Sandbox]:
    yield served
    service = served.services["tess_kepler"]
    service.page_rows, service.executing, service.lost_rows, service.message = stand_in.MOST_ROWS, 0, 0, None
    service.asked.clear()
    served._faults.clear()


@pytest.fixture
def reached(box: Sandbox, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints=dict(box.endpoints), timeout_s=10.0, retries=0)


def by_place(box: Sandbox, settings: Settings, *places: tuple[float, float], radius: float = 1.0) -> list[Found]:
    at = np.array(places, float).reshape(-1, 2)
    return search(box.url(), settings, {}, (at[:, 0], at[:, 1]), radius, "tess_kepler")


def by_id(box: Sandbox, settings: Settings, **ids: list[int]) -> list[Found]:
    return search(box.url(), settings, ids, (np.empty(0), np.empty(0)), 1.0, "tess_kepler")


def names(found: list[Found]) -> set[str]:
    return {file.name for file in found}


# --- what is asked ---


def test_by_number_one_that_three_catalogues_have(box: Sandbox, reached: Settings) -> None:
    tic, kic, epic = (by_id(box, reached, **{name: [1001]}) for name in ("TIC", "KIC", "EPIC"))
    assert {source_of(file.named) for file in tic} == {("TIC", 1001)}
    assert {source_of(file.named) for file in kic} == {("KIC", 1001)}
    assert {source_of(file.named) for file in epic} == {("EPIC", 1001)}
    assert (len(tic), len(kic), len(epic)) == (4, 3, 3), "HLSPs, too"
    together = by_id(box, reached, TIC=[1001], KIC=[1001], EPIC=[1001, 7])
    assert names(together) == names([*tic, *kic, *epic])
    assert by_id(box, reached, KIC=[1002], TIC=[1003]) == []


def test_what_a_file_is_known_by(box: Sandbox, reached: Settings) -> None:
    (file,) = by_id(box, reached, TIC=[1002])
    assert file.uri == "mast:TESS/product/" + file.name
    assert (file.cadence_s, file.ra, file.dec) == (120.0, HERE[0], HERE[1] + 1.5 / 3600)
    assert file.size is not None
    assert file.size % 2880 == 0
    assert {one.cadence_s for one in by_id(box, reached, TIC=[1001])} == {20.0, 120.0, 600.0, 1800.0}


def test_by_place(box: Sandbox, reached: Settings) -> None:
    assert names(by_place(box, reached, HERE)) == names(by_id(box, reached, TIC=[1001]))
    assert names(by_place(box, reached, HERE, radius=1.6)) == names(by_id(box, reached, TIC=[1001, 1002]))
    across = (359.99999, 10.0)
    assert names(by_place(box, reached, across)) == names(by_id(box, reached, KIC=[1001]))
    assert names(by_place(box, reached, (303.0, 89.9999), radius=1.0)) == names(by_id(box, reached, EPIC=[1001]))
    everything = by_place(box, reached, HERE, across, POLE, (10.0, 10.0), radius=2.0)
    assert names(everything) == names(by_id(box, reached, TIC=[1001, 1002], KIC=[1001], EPIC=[1001]))
    assert by_place(box, reached, (10.0, 10.0)) == by_place(box, reached) == []


def test_one_search_a_batch(box: Sandbox, reached: Settings) -> None:
    at = np.array([(HERE[0] + n, HERE[1]) for n in range(10)])
    search(
        box.url(), reached, {"TIC": list(range(1000, 1009)), "EPIC": [1001]}, (at[:, 0], at[:, 1]), 1.0, "tess_kepler"
    )
    service = box.services["tess_kepler"]
    assert [name for name, _ in service.asked] == ["Mast.Caom.Crossmatch", "Mast.Caom.Filtered", "Mast.Caom.Products"]
    filters = {one["paramName"]: one["values"] for one in service.asked[1][1]["filters"]}
    assert {"1001", "1008", "ktwo000001001"} <= set(filters["target_name"])
    assert filters["provenance_name"] == ["SPOC", "TESS-SPOC", "QLP", "Kepler", "K2", "EVEREST", "K2SFF"]
    service.asked.clear()
    by_place(box, reached, (10.0, 10.0))
    assert [name for name, _ in service.asked] == ["Mast.Caom.Crossmatch"]


def test_only_authors_that_are_wanted(box: Sandbox, reached: Settings) -> None:
    at = (np.array([HERE[0]]), np.array([HERE[1]]))
    found = search(box.url(), reached, {}, at, 1.0, "tess_kepler", ["QLP"])
    assert {file.named.pipeline.name for file in found} == {"qlp"}
    assert search(box.url(), reached, {"TIC": [1002]}, (np.empty(0), np.empty(0)), 1.0, "tess_kepler", ["QLP"]) == []


def test_long_lists_of_observations_are_asked_in_parts(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_id(box, reached, TIC=[1001], EPIC=[1001])
    monkeypatch.setattr(mast_portal, "_OBSERVATIONS", 2)
    box.services["tess_kepler"].asked.clear()
    assert names(by_id(box, reached, TIC=[1001], EPIC=[1001])) == names(whole)
    assert [name for name, _ in box.services["tess_kepler"].asked].count("Mast.Caom.Products") == 4


def test_pages_are_read_to_the_end_and_searches_waited_for(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_place(box, reached, HERE)
    monkeypatch.setattr(mast_portal, "PAGE_ROWS", 3)
    monkeypatch.setattr(mast_portal, "_FIRST_POLL_S", 0.001)
    box.services["tess_kepler"].executing = 2
    box.services["tess_kepler"].asked.clear()
    before = len(box.requests)
    assert by_place(box, reached, HERE) == whole
    pages = len(box.services["tess_kepler"].asked)
    assert pages == 2 + 2 + 4, "five observations and an image; those of the numbers; ten files"
    assert len(box.requests) - before == 3 * pages, "each page was under way twice"


# --- answers that are no good ---


def test_the_services_own_words(box: Sandbox, reached: Settings) -> None:
    service = box.services["tess_kepler"]
    service.message = ("ERROR", "Error running query: the database is away")
    with pytest.raises(ArchiveError, match=r"Mast.Caom.Filtered: status ERROR: .*the database is away") as caught:
        by_id(box, reached, TIC=[1001])
    assert caught.value.transient
    service.message = ("COMPLETE", "Query results were truncated at 50000 rows")
    with pytest.raises(TruncatedAnswer, match="truncated at 50000 rows"):
        by_id(box, reached, TIC=[1001])
    service.message = ("COMPLETE", "")
    with pytest.raises(ArchiveError, match="the answer has no rows"):
        by_id(box, reached, TIC=[1001])


def test_a_search_that_does_not_end(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mast_portal, "_FIRST_POLL_S", 0.01)
    box.services["tess_kepler"].executing = 10**6
    with pytest.raises(ArchiveError, match=r"still (EXECUTING|not through) after 0\.2 s") as caught:
        by_id(box, reached.model_copy(update={"task_timeout_s": 0.2}), TIC=[1001])
    assert caught.value.transient


def test_rows_that_did_not_come(box: Sandbox, reached: Settings) -> None:
    box.services["tess_kepler"].lost_rows = 1
    with pytest.raises(TruncatedAnswer, match=r"Mast.Caom.Filtered: 4 of 5 rows came"):
        by_id(box, reached, TIC=[1001])


def answered(tmp_path: Path, answer: Any, monkeypatch: pytest.MonkeyPatch, page_rows: int = 7) -> list[dict[str, Any]]:
    """Rows of an answer; a function gets the number of the page."""
    monkeypatch.setattr(mast_portal, "PAGE_ROWS", page_rows)

    def handle(request: Request) -> Response:
        page = json.loads(request.form()[0]["REQUEST"])["page"]
        given = answer(page) if callable(answer) else answer
        return Response(given if isinstance(given, bytes) else json.dumps(given).encode(), 200, "application/json")

    with Sandbox() as box:
        box.mount(INVOKE, handle)
        with Session("tess_kepler", box.url(INVOKE), 5.0, 10.0) as session:
            return rows_of(session, "Mast.Caom.Filtered", {})


def complete(rows: list[Any], total: Any = None) -> dict[str, Any]:
    paging = {"paging": {"page": 1, "rowsTotal": total}} if total is not None else {}
    return {"status": "COMPLETE", "msg": "", "data": rows, "fields": [], **paging}


def test_pages_that_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(answered(tmp_path, complete(ROWS[:3]), monkeypatch)) == 3, "without paging, less than a page is all"
    assert answered(tmp_path, complete([], 0), monkeypatch) == []
    assert "s_region" not in answered(tmp_path, complete(ROWS, 7), monkeypatch)[0]
    two = answered(tmp_path, lambda page: complete(ROWS[4 * page - 4 : 4 * page], 7), monkeypatch, 4)
    assert [row["obsid"] for row in two] == [row["obsid"] for row in ROWS]
    with pytest.raises(TruncatedAnswer, match="7 rows came, and it does not say of how many"):
        answered(tmp_path, complete(ROWS), monkeypatch)
    with pytest.raises(TruncatedAnswer, match="page 2 is page 1 again"):
        answered(tmp_path, complete(ROWS, 20), monkeypatch)
    with pytest.raises(TruncatedAnswer, match="7 rows came of 5"):
        answered(tmp_path, complete(ROWS, 5), monkeypatch)
    with pytest.raises(TruncatedAnswer, match="7 of 9 rows came"):
        answered(tmp_path, lambda page: complete(ROWS if page == 1 else [], 9), monkeypatch)
    monkeypatch.setattr(mast_portal, "MOST_PAGES", 3)
    with pytest.raises(TruncatedAnswer, match="no end after 3 rows"):
        answered(tmp_path, lambda page: complete([ROWS[page]], 9), monkeypatch, 1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the answer is no JSON"),
        (b'{"status": "COMPLETE", "da', "the answer is no JSON"),
        ([], "the answer is not the portal's"),
        ({"data": []}, "status None: it does not say why"),
        ({"status": "COMPLETE", "data": None}, "the answer has no rows"),
        (complete([1]), "the answer has no rows"),
        (complete([], "all"), "the answer has 'all' rows"),
        ({"status": "QUEUED", "msg": "later"}, "status QUEUED: later"),
    ],
)
def test_what_is_no_answer_may_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, message: str) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        answered(tmp_path, answer, monkeypatch)
    assert caught.value.transient
    assert not isinstance(caught.value, TruncatedAnswer)
    assert "LIGHTLAKE_ENDPOINTS__TESS_KEPLER" in str(caught.value)


def changed(box: Sandbox, monkeypatch: pytest.MonkeyPatch, service_name: str, **change: Any) -> None:
    """Let a service's rows have other values; None leaves them out."""
    service: Service = box.services["tess_kepler"]
    rows_as_they_are = service._rows

    def rows(name: str, params: dict[str, Any], data: Any) -> list[dict[str, Any]]:
        rows = rows_as_they_are(name, params, data)
        return [row | change for row in rows] if name == service_name else rows

    monkeypatch.setattr(service, "_rows", rows)


@pytest.mark.parametrize(
    ("service", "change", "message"),
    [
        ("Mast.Caom.Crossmatch", {"s_ra": None, "dataproduct_type": "cube", "provenance_name": "Spoc"}, "without s_ra"),
        ("Mast.Caom.Filtered", {"obsid": None}, "without obsid"),
        ("Mast.Caom.Filtered", {"s_dec": 91.0}, "is at 77.3582, 91.0"),
        ("Mast.Caom.Filtered", {"s_ra": "east"}, "is at 'east'"),
        ("Mast.Caom.Products", {"dataURI": None}, "without dataURI"),
        (
            "Mast.Caom.Products",
            {"productFilename": "ktwo000000009-c05_llc.fits", "obsID": "1", "parent_obsid": None, "obs_id": "else"},
            "it answered with ktwo000000009-c05_llc.fits, unasked",
        ),
    ],
)
def test_rows_that_make_no_sense(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch, service: str, change: dict[str, Any], message: str
) -> None:
    changed(box, monkeypatch, service, **change)
    with pytest.raises(ArchiveError, match=message):
        by_place(box, reached, HERE)


@pytest.mark.parametrize(
    ("service", "change", "lost", "told"),
    [
        ("Mast.Caom.Crossmatch", {"s_ra": None}, 0, "observations without a place: 1"),
        ("Mast.Caom.Filtered", {"s_dec": 91.0}, 0, "observations without a place: 1"),
        ("Mast.Caom.Products", {"dataURI": None}, 1, "files without an address, left out: 1"),
    ],
)
def test_one_odd_row_takes_no_other_with_it(
    box: Sandbox,
    reached: Settings,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    change: dict[str, Any],
    lost: int,
    told: str,
) -> None:
    whole = by_id(box, reached, TIC=[1001])
    assert len(whole) > 1
    rows_as_they_are = box.services["tess_kepler"]._rows

    def rows(name: str, params: dict[str, Any], data: Any) -> list[dict[str, Any]]:
        rows = rows_as_they_are(name, params, data)
        is_light = [
            row.get("dataproduct_type") == "timeseries" or "_lc.fits" in str(row.get("productFilename")) for row in rows
        ]
        odd = is_light.index(True) if any(is_light) else None
        return [row | change if n == odd else row for n, row in enumerate(rows)] if name == service else rows

    monkeypatch.setattr(box.services["tess_kepler"], "_rows", rows)
    said: list[str] = []
    places = (np.array([HERE[0]]), np.array([HERE[1]]))
    found = search(box.endpoints["tess_kepler"], reached, {"TIC": [1001]}, places, 5.0, "tess_kepler", remarks=said)
    assert len({file.name for file in whole} - {file.name for file in found}) <= lost
    assert told in said


def test_a_file_is_its_observations_by_any_of_their_names(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_id(box, reached, TIC=[1001])
    with monkeypatch.context() as patch:
        changed(box, patch, "Mast.Caom.Products", parent_obsid=None, size=0)
        assert names(by_id(box, reached, TIC=[1001])) == names(whole)
        assert {file.size for file in by_id(box, reached, TIC=[1001])} == {None}
    with monkeypatch.context() as patch:
        changed(box, patch, "Mast.Caom.Products", parent_obsid=None, obsID="1")
        assert by_id(box, reached, TIC=[1001]) == whole
    changed(box, monkeypatch, "Mast.Caom.Products", parent_obsid=None, obsID="1", obs_id="else")
    assert names(by_id(box, reached, TIC=[1001])) == names(whole)


def test_a_cross_match_that_says_less(box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without project and author a number alone could be of any catalogue: files then tell."""
    whole = by_place(box, reached, POLE)
    changed(box, monkeypatch, "Mast.Caom.Crossmatch", project=None, provenance_name=None, obs_collection="HLSP")
    assert names(by_place(box, reached, POLE)) >= names(whole)


def test_what_other_missions_have_there_is_left(
    box: Sandbox, reached: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(box, monkeypatch, "Mast.Caom.Crossmatch", obs_collection="HST", provenance_name=None, s_ra=None)
    assert by_place(box, reached, HERE) == []
