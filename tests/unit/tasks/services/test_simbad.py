"""SIMBAD's objects of names, and names of objects: many at a time, whole, in any order of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from deployments.sandbox import simbad as stand_in
from deployments.sandbox.server import Response, Sandbox
from deployments.sandbox.simbad import TAP_PATH, NameService
from deployments.sandbox.tap import VOTABLE, votable
from lake.errors import ArchiveError, TruncatedAnswer
from lake.settings import Settings, load_settings
from tasks.services import simbad
from tasks.services.simbad import OBJECTS, names_of, objects_of


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Iterator[NameService]:
    served = stand_in.mount(box)
    yield served
    served.close()


@pytest.fixture
def reached(service: NameService, tmp_path: Path) -> Settings:
    return load_settings(url=str(tmp_path), endpoints={"simbad": service.url}, timeout_s=10.0)


def test_objects_by_name(reached: Settings) -> None:
    names = ["nobody", "pg1226+023", "GJ 699", "3C 273"]
    found = objects_of(names, reached)
    assert found.schema == OBJECTS
    rows = found.to_pylist()
    assert [(row["number"], row["main_id"]) for row in rows] == [
        (1, "3C 273"),
        (2, "NAME Barnard's star"),
        (3, "3C 273"),
    ]
    assert rows[0]["oid"] == rows[2]["oid"]
    assert (rows[0]["ra"], rows[0]["dec"], rows[0]["pmra"]) == (187.27791594049, 2.05238824055, None)
    assert (rows[1]["pmra"], rows[1]["pmdec"], rows[1]["otype"]) == (-801.551, 10362.394, "BY*")
    assert objects_of([], reached).num_rows == 0


def test_case_matters_where_it_does(reached: Settings) -> None:
    rows = objects_of(["k Tau", "K Tau", "hd 26912"], reached)["main_id"].to_pylist()
    assert rows == ["* k Tau", "* kap01 Tau", "* k Tau"]


def test_names_of_objects(reached: Settings, service: NameService, monkeypatch: pytest.MonkeyPatch) -> None:
    oids = objects_of(["3C 273", "Mrk 421"], reached)["oid"].to_pylist()
    expected = [
        ["2MASS J12290669+0203085", "3C 273", "NAME 3C 273", "PG 1226+023", "QSO B1226+0219", "[HB89] 1226+023"],
        ["2MASS J11042731+3812317", "Mrk 421", "QSO B1101+384", "UGC 6132"],
    ]
    assert names_of(oids, reached) == dict(zip(oids, expected, strict=True))
    n = len(service.queries)
    monkeypatch.setattr(simbad, "_MOST_ROWS", 8)
    assert names_of(oids, reached) == dict(zip(oids, expected, strict=True))
    assert len(service.queries) == n + 3, "an answer that is cut is asked for in halves"
    monkeypatch.setattr(simbad, "_MOST_ROWS", 3)
    with pytest.raises(TruncatedAnswer):
        names_of(oids, reached)
    assert names_of([], reached) == {}
    assert names_of([4711], reached) == {4711: []}


@pytest.mark.parametrize("kind", ["status:500", "garbage", "short", "reset"])
def test_faults_are_told(box: Sandbox, reached: Settings, service: NameService, kind: str) -> None:
    for ask in (lambda: objects_of(["3C 273"], reached), lambda: names_of([1], reached)):
        box.fault(TAP_PATH, kind)
        with pytest.raises(ArchiveError) as caught:
            ask()
        assert caught.value.transient
        assert (caught.value.archive, caught.value.endpoint) == ("simbad", service.url)


def test_rows_that_are_lost_in_silence(reached: Settings, service: NameService) -> None:
    service.silent_cap = 1
    with pytest.raises(ArchiveError, match="not of the 2 names"):
        objects_of(["3C 273", "nobody"], reached)


def test_names_of_objects_that_nobody_asked_for(box: Sandbox, tmp_path: Path) -> None:
    answer = votable(pa.table({"oidref": pa.array([7], pa.int64()), "id": ["M 1"]}))
    box.mount("/tap", lambda request: Response(answer, 200, VOTABLE))
    settings = load_settings(url=str(tmp_path), endpoints={"simbad": box.url("/tap")})
    with pytest.raises(ArchiveError, match="not of the 1 object that"):
        names_of([8], settings)
