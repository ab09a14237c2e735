"""The TAP client against a service that does everything wrong, one thing at a time."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from astropy.io.votable import parse_single_table

from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.tap import TapService
from lake.errors import ArchiveError, TruncatedAnswer
from tasks.services.tap import Service, to_arrow, to_votable

STARS = pa.table(
    {
        "id": pa.array(range(100), pa.int64()),
        "ra": np.linspace(0, 359, 100),
        "dec": np.linspace(-80, 80, 100),
        "mag": pa.array([None if i % 7 == 0 else 10 + i / 10 for i in range(100)], pa.float64()),
        "variable": pa.array([i % 2 == 0 for i in range(100)], pa.bool_()),
        "name": pa.array([None if i % 5 == 0 else f"star {i} <&>" for i in range(100)], pa.string()),
    }
)
ALL = "SELECT id, ra, dec, mag, variable, name FROM stars ORDER BY id"


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def tap(box: Sandbox) -> Iterator[TapService]:
    service = TapService(box, "/tap", {"stars": STARS})
    yield service
    service.close()


@pytest.fixture
def service(tap: TapService) -> Service:
    return Service("stars", tap.url, timeout_s=5, deadline_s=20)


def refused(service: Service, told: str, *, asynchronous: bool = False, adql: str = ALL) -> ArchiveError:
    with pytest.raises(ArchiveError, match=told) as caught:
        service.query(adql, maxrec=1000, asynchronous=asynchronous)
    assert caught.value.archive == "stars"
    assert caught.value.endpoint == service.url
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_comes_is_what_is_there(service: Service, asynchronous: bool) -> None:
    assert service.query(ALL, maxrec=1000, asynchronous=asynchronous).to_pylist() == STARS.to_pylist()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_uploaded_table_is_joined(service: Service, asynchronous: bool) -> None:
    mine = pa.table({"id": pa.array([3, 5, 2**62], pa.int64()), "ra": [1.5, 2.5, 3.5]})
    adql = "SELECT t.id, t.ra, s.name FROM stars AS s, tap_upload.mine AS t WHERE s.id = t.id"
    found = service.query(adql, {"mine": mine}, maxrec=1000, asynchronous=asynchronous)
    assert sorted(found["id"].to_pylist()) == [3, 5]
    big = service.query("SELECT t.id FROM tap_upload.mine AS t", {"mine": mine}, maxrec=1000)
    assert 2**62 in big["id"].to_pylist()


def test_what_is_uploaded_arrives_as_it_is(service: Service) -> None:
    mine = pa.table(
        {
            "id": pa.array([-(2**62), 0, None], pa.int64()),
            "x": pa.array([0.1, 1e-300, None], pa.float64()),
            "name": pa.array(["<&>\"'", "ä Ω", None], pa.string()),
        }
    )
    found = service.query("SELECT t.id, t.x, t.name FROM tap_upload.mine AS t", {"mine": mine.slice(0, 2)}, maxrec=10)
    assert sorted(found.to_pylist(), key=str) == sorted(mine.slice(0, 2).to_pylist(), key=str)
    xml = to_votable(mine).decode()
    assert "<TR><TD></TD><TD></TD><TD></TD></TR>" in xml
    assert parse_single_table(io.BytesIO(xml.encode())).array["x"].mask.tolist() == [False, False, True]


def test_no_rows_are_an_answer(service: Service) -> None:
    assert service.query("SELECT id, name FROM stars WHERE id < 0", maxrec=1000).num_rows == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_overflow_is_never_accepted(service: Service, tap: TapService, asynchronous: bool) -> None:
    with pytest.raises(TruncatedAnswer, match="cut at 40 rows"):
        service.query(ALL, maxrec=40, asynchronous=asynchronous)
    tap.hard_limit = 30
    with pytest.raises(TruncatedAnswer, match="cut at 30 rows"):
        service.query(ALL, maxrec=1000, asynchronous=asynchronous)


def test_as_many_rows_as_the_silent_cap_are_too_many(tap: TapService) -> None:
    tap.silent_cap = 25
    with pytest.raises(TruncatedAnswer, match="cut at 25 rows"):
        Service("stars", tap.url, 5, 20, cap=25).query(ALL, maxrec=1000)
    assert Service("stars", tap.url, 5, 20, cap=25).query(f"{ALL} LIMIT 24", maxrec=1000).num_rows == 24


def test_an_error_under_http_200_is_told_in_the_services_words(service: Service, tap: TapService) -> None:
    tap.fault("error-200")
    assert refused(service, "the service says: the database went away").transient
    assert service.query(ALL, maxrec=1000).num_rows == 100


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_that_it_cannot_parse_is_not_asked_again(service: Service, asynchronous: bool) -> None:
    error = refused(
        service, "(?i)HTTP 400.*nowhere|ERROR: .*nowhere", adql="SELECT x FROM nowhere", asynchronous=asynchronous
    )
    assert not error.transient


def test_a_job_that_ends_in_error_carries_its_message(service: Service, tap: TapService) -> None:
    tap.fault("job-error")
    assert refused(service, "the job ended in phase ERROR: .*[a-z]{3}", asynchronous=True).transient
    assert not tap.jobs, "the job is deleted"


def test_a_job_that_somebody_aborts(service: Service, tap: TapService) -> None:
    tap.fault("job-aborted")
    assert refused(service, "the job ended in phase ABORTED", asynchronous=True).transient
    assert not tap.jobs


def test_a_job_that_never_ends_is_given_up_and_deleted(tap: TapService) -> None:
    tap.fault("job-hangs")
    error = refused(Service("stars", tap.url, 5, 1.0), "the job is still EXECUTING after 1 s", asynchronous=True)
    assert error.transient
    assert not tap.jobs


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tap"
    assert refused(Service("stars", url, 5, 20), "the connection failed").transient


def test_a_name_that_does_not_resolve() -> None:
    error = refused(Service("stars", "http://archive.invalid/tap", 5, 20), "its name does not resolve")
    assert error.transient


def test_an_address_that_is_none() -> None:
    assert not refused(Service("stars", "archive/tap", 5, 20), "Invalid URL").transient


def test_redirects_without_end(box: Sandbox) -> None:
    def around(request: Request) -> Response:
        return Response(b"", 303, "text/plain", {"Location": box.url("/tap/sync")})

    box.mount("/tap", around)
    assert not refused(Service("stars", box.url("/tap"), 5, 20), "redirect").transient


def test_numbers_of_any_byte_order_and_cells_of_any_kind() -> None:
    from astropy.table import MaskedColumn, Table

    table = Table({"a": np.array([1, 2], ">i8"), "b": MaskedColumn([1.0, 2.0], mask=[True, False], dtype=">f4")})
    table["c"] = np.array([[1.0, np.nan], [3.0, 4.0]])
    assert to_arrow({name: table[name] for name in table.colnames}).to_pydict() == {
        "a": [1, 2],
        "b": [None, 2.0],
        "c": [[1.0, None], [3.0, 4.0]],
    }
