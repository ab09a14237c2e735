"""Canonical names: rules that lose no sign, what SIMBAD says, names asked for once, answers that are no good."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.sandbox import simbad as stand_in
from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.simbad import NameService
from deployments.sandbox.tap import VOTABLE, votable
from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings, load_settings
from tasks.sources.hst_timetag import names
from tasks.sources.hst_timetag.names import ALIASES, Decision, ask_simbad, by_rule, decide, resolve, spellings

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NOTHING = ALIASES.empty_table()


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Iterator[NameService]:
    served = stand_in.mount(box, ["QSO-B0512+056", "SANDBOX-STAR"])
    yield served
    served.close()


@pytest.fixture
def reached(box: Sandbox, service: NameService, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints={"simbad": service.url}, timeout_s=10.0)


def exposures(*given: str, moving: bool = False) -> pa.Table:
    return pa.table({"target_name": list(given), "is_moving": [moving] * len(given)})


def resolved(settings: Settings, *given: str, moving: bool = False) -> dict[str, tuple[str, str]]:
    rows = resolve(exposures(*given, moving=moving), NOTHING, settings).to_pylist()
    return {row["name"]: (row["canonical_name"], row["method"]) for row in rows}


# --- rules ---


def test_examples_in_the_text() -> None:
    done = doctest.testmod(names)
    assert (done.failed, done.attempted) == (0, 5)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("2MASS-J04372999-5228461", "2MASSJ04372999-5228461"),
        ("NGC-6833", "NGC6833"),
        ("HD-209458", "HD209458"),
        ("MRK-421", "MRK421"),
        ("SDSS-J1357-0933", "SDSSJ1357-0933"),
        ("QSO-B2126-158", "QSOB2126-158"),
        ("WD-0308-565", "WD0308-565"),
        ("PG-1211+143", "PG1211+143"),
        ("AZV-456", "AZV456"),
        ("V471-TAU", "V471TAU"),
        ("V471-TAU-VISIT6", "V471TAU"),
        ("GQ-LUP-EPOCH2", "GQ-LUP"),
        ("GQ-LUP-UPDATED", "GQ-LUP"),
        ("GQ-LUP-UPDATE-VISIT12", "GQ-LUP"),
        # Signs stay.
        ("SK-71-45", "SK-71-45"),
        ("4C-01.61", "4C-01.61"),
        ("4C--01.61", "4C-01.61"),
        ("4C-+12.50", "4C+12.50"),
        ("BD-03-5480", "BD-03-5480"),
        ("BD--03-5480", "BD-03-5480"),
        ("CD-38-10980", "CD-38-10980"),
        ("MCG-06-30-15", "MCG-06-30-15"),
        # Hyphens that belong to the name, and names that look like a suffix alone.
        ("KEPLER-10", "KEPLER-10"),
        ("SWIFTJ1357.2-0933", "SWIFTJ1357.2-0933"),
        ("HDF-NORTH", "HDF-NORTH"),
        ("UPDATE", "UPDATE"),
        ("-VISIT6", "-VISIT6"),
    ],
)
def test_names_by_rule(name: str, cleaned: str) -> None:
    assert by_rule(name) == cleaned
    assert by_rule(cleaned) == cleaned


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("MARS-STIS", "MARS"),
        ("JUPITER-NORTH-3", "JUPITER-NORTH"),
        ("EUROPA-4-SECOND", "EUROPA-4"),
        ("EUROPA-4", "EUROPA-4"),
        ("COMET-67P-VISIT2", "COMET-67P"),
        ("1999-OJ4", "1999-OJ4"),
    ],
)
def test_moving_targets_go_by_name(name: str, body: str) -> None:
    assert decide(name, {name: "* never"}, is_moving=True) == Decision(body, "moving_target")


def test_calibration_names_are_no_objects() -> None:
    for name in ("DARK", "BIAS", "DEUTERIUM", "WAVE", "ANY", "NONE"):
        assert decide(name, {name: "* never"}) == Decision(name, "calibration")
        assert decide(name, {name: "* never"}, is_moving=True).method == "calibration"


@given(st.from_regex(r"(SK|BD|CD|CPD|MCG|4C|3C|AGK|FOO)[+-][0-9]{1,2}-?[0-9]{0,4}(-VISIT[0-9])?", fullmatch=True))
def test_no_spelling_loses_a_sign(name: str) -> None:
    zone = name.removesuffix(name[name.find("-VISIT") :]) if "-VISIT" in name else name
    sign = next(place for place, one in enumerate(zone) if one in "+-")
    for spelling in (by_rule(name), *(one for one, _ in spellings(name))):
        assert spelling.replace(" ", "").startswith(zone[: sign + 2])


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.", min_size=1, max_size=30))
def test_rules_never_fail_and_letters_and_digits_stay(name: str) -> None:
    first, *_ = spellings(name)
    assert first == (name, "name")
    for spelling in (by_rule(name), *(one for one, _ in spellings(name))):
        letters = [one for one in spelling if one not in "- "]
        assert letters == [one for one in name if one != "-"][: len(letters)]
        assert spelling


def test_the_spelling_that_counts_most_decides() -> None:
    known = {"V471-TAU-VISIT6": "A", "V471-TAU": "B", "V471 TAU": "C"}
    for number, (method, main_id) in enumerate((("name", "A"), ("without_suffix", "B"), ("with_blanks", "C"))):
        left = dict(list(known.items())[number:])
        assert decide("V471-TAU-VISIT6", left) == Decision(main_id, method)
        assert decide("V471-TAU-VISIT6", dict(reversed(left.items()))) == Decision(main_id, method)
    assert decide("V471-TAU-VISIT6", {}) == Decision("V471TAU", "rule")
    assert decide("SOME-STAR", {}) == Decision("SOME-STAR", "raw")
    assert decide("SOME-STAR", {"SOME STAR": "  "}) == Decision("SOME-STAR", "raw")


# --- with the service ---


def test_names_get_their_main_identifier(reached: Settings) -> None:
    assert resolved(
        reached,
        "NGC-6833",
        "NGC6833",
        "HD209458",
        "V471-TAU-EPOCH2",
        "ALPHA-CEN",
        "AD-LEO",
        "SK-71-45",
        "SK-67-45",
        "4C--01.61",
        "2MASS-J04372999-5228461",
        "QSO-B0512+056",
        "SANDBOX-STAR",
        "UGC-99999",
        "WAVE",
    ) == {
        "NGC-6833": ("NGC 6833", "with_blanks"),
        "NGC6833": ("NGC 6833", "name"),
        "HD209458": ("HD 209458", "name"),
        "V471-TAU-EPOCH2": ("V* V471 Tau", "with_blanks"),
        "ALPHA-CEN": ("* alf Cen", "with_blanks"),
        "AD-LEO": ("V* AD Leo", "with_blanks"),
        "SK-71-45": ("SK -71 45", "with_blanks"),
        # Without its sign it would be another: SK 7145 is a name of SK -67 45 here.
        "SK-67-45": ("SK -67 45", "with_blanks"),
        "4C--01.61": ("4C -01.61", "with_blanks"),
        "2MASS-J04372999-5228461": ("2MASS J04372999-5228461", "with_blanks"),
        "QSO-B0512+056": ("QSO B0512+056", "with_blanks"),
        "SANDBOX-STAR": ("SANDBOX-STAR", "raw"),
        "UGC-99999": ("UGC99999", "rule"),
        "WAVE": ("WAVE", "calibration"),
    }


def test_a_second_run_asks_nothing(reached: Settings, service: NameService) -> None:
    given = exposures("NGC-6833", "SANDBOX-STAR", "NGC-6833")
    rows = resolve(given, NOTHING, reached, now=NOW)
    assert rows.schema == ALIASES
    assert rows["name"].to_pylist() == ["NGC-6833", "SANDBOX-STAR"]
    assert rows["service"].to_pylist() == ["simbad", "simbad"], "that it knows no such name is an answer"
    assert rows["asked_at"].to_pylist() == [NOW, NOW]
    assert len(service.queries) == 1
    nowhere = reached.model_copy(update={"endpoints": {"simbad": "http://127.0.0.1:9"}})
    assert resolve(given, rows, nowhere).num_rows == 0
    more = resolve(exposures("NGC-6833", "AD-LEO"), rows, reached)
    assert more["name"].to_pylist() == ["AD-LEO"]


def test_the_same_names_in_another_order_give_the_same_rows(reached: Settings) -> None:
    given = ("NGC-6833", "AD-LEO", "SANDBOX-STAR", "HD209458")
    rows = resolve(exposures(*given), NOTHING, reached, now=NOW)
    assert resolve(exposures(*reversed(given)), NOTHING, reached, now=NOW) == rows


def test_moving_targets_and_lamps_are_not_asked_for(reached: Settings, service: NameService) -> None:
    both = pa.concat_tables([exposures("JUPITER-NORTH-3", "EUROPA", moving=True), exposures("DARK", "EUROPA")])
    rows = resolve(both, NOTHING, reached, now=NOW).to_pylist()
    assert [(row["name"], row["canonical_name"], row["service"]) for row in rows] == [
        ("DARK", "DARK", None),
        ("EUROPA", "EUROPA", None),
        ("JUPITER-NORTH-3", "JUPITER-NORTH", None),
    ]
    assert service.queries == []
    nothing = pa.table({"target_name": pa.array([None], pa.string()), "is_moving": [False]})
    assert resolve(nothing, NOTHING, reached).num_rows == 0


def test_many_names_are_asked_in_parts(
    reached: Settings, service: NameService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "NAMES", 7)
    given = [f"STAR{number}" for number in range(20)] + ["NGC-6833"]
    assert resolved(reached, *given)["NGC-6833"] == ("NGC 6833", "with_blanks")
    assert len(service.queries) == -(-22 // 7)


def test_a_name_of_two_objects_is_of_none(box: Sandbox, tmp_path: Path) -> None:
    two = stand_in.serve(box, [("HD 1", "TWIN"), ("HD 2", "TWIN"), ("HD 3", "SINGLE")])
    settings = load_settings(url=str(tmp_path), endpoints={"simbad": two.url})
    assert ask_simbad(["TWIN", "SINGLE"], settings) == {"SINGLE": "HD 3"}
    assert resolved(settings, "TWIN") == {"TWIN": ("TWIN", "raw")}
    two.close()


def test_names_are_data(reached: Settings) -> None:
    odd = ["O'NEILL", '"; DROP TABLE ident; --', "<b>&amp;</b>", "ä-STAR", "100%"]
    assert ask_simbad([*odd, "NGC 6833"], reached) == {"NGC 6833": "NGC  6833"}
    assert {name: canonical for name, (canonical, _) in resolved(reached, *odd).items()} == {name: name for name in odd}


# --- answers that are no good ---


def test_an_error_in_the_answer_is_no_answer(reached: Settings, service: NameService) -> None:
    service.fault("error-200")
    with pytest.raises(ArchiveError, match="the database went away") as caught:
        resolved(reached, "NGC-6833")
    assert caught.value.transient


def test_an_answer_that_is_cut_is_no_answer(reached: Settings, service: NameService) -> None:
    service.hard_limit = 1
    with pytest.raises(TruncatedAnswer):
        resolved(reached, "NGC-6833")
    service.hard_limit, service.silent_cap = None, 1
    with pytest.raises(ArchiveError, match="not of the 2 names") as caught:
        resolved(reached, "NGC-6833")
    assert caught.value.transient


@pytest.mark.parametrize(
    "answer",
    [
        pa.table({"main_id": ["NGC  6833"]}),
        pa.table({"main_id": ["A", "B"], "object_number_id": pa.array([7, 8], pa.int64())}),
    ],
)
def test_an_answer_to_another_question(answer: pa.Table, tmp_path: Path) -> None:
    with Sandbox() as box:
        box.mount("/tap", lambda request: _votable(request, answer))
        settings = load_settings(url=str(tmp_path), endpoints={"simbad": box.url("/tap")})
        with pytest.raises(ArchiveError, match="not of the 2 names"):
            resolved(settings, "NGC-6833")


def _votable(request: Request, answer: pa.Table) -> Response:
    return Response(votable(answer), 200, VOTABLE)
