"""The TAP service of the sandbox, and the HEASARC's tables in it, as pyvo and brute force see them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import astropy.units as u
import httpx
import numpy as np
import pyarrow as pa
import pytest
import pyvo
import requests
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from deployments.sandbox import heasarc
from deployments.sandbox.server import Sandbox
from deployments.sandbox.tap import TapService

# Tests of the archives see what is wrong with it, too.
pytestmark = pytest.mark.long

CORNERS = [(0.00002, 10.0), (359.99998, -35.0), (123.0, 89.9999), (301.0, -89.99995), (77.3582, 5.6931), (180.0, 0.0)]
SHAPE_A = """SELECT t.target_id, s.source_id, s.ra, s.dec, s.pmra FROM gaiadr3.gaia_source AS s, tap_upload.targets AS t
WHERE 1 = CONTAINS(POINT('ICRS', s.ra, s.dec), CIRCLE('ICRS', t.ra, t.dec, t.reach_deg))
AND (DISTANCE(POINT('ICRS', s.ra, s.dec), POINT('ICRS', t.ra, t.dec)) <= t.radius_deg
OR DISTANCE(POINT('ICRS', s.ra, s.dec), POINT('ICRS', t.ra, t.dec))
<= t.radius_deg + t.years * SQRT(s.pmra * s.pmra + s.pmdec * s.pmdec) / 3600000.0)"""
SHAPE_B = """SELECT t.target_id, e.name, e.ra, e.dec, e."time", e.error_radius, e.fluence
FROM saxgrbmgrb AS e, tap_upload.targets AS t WHERE e.error_radius < 3.0
AND 1 = CONTAINS(POINT('ICRS', t.ra, t.dec), CIRCLE('ICRS', e.ra, e.dec, e.error_radius))"""
SHAPE_C = """SELECT t.target_id, e."time", e.ra, e.dec FROM icecubepsc AS e, tap_upload.targets AS t
WHERE 1 = CONTAINS(POINT('ICRS', t.ra, t.dec), CIRCLE('ICRS', e.ra, e.dec, 2.0))
AND DISTANCE(POINT('ICRS', t.ra, t.dec), POINT('ICRS', e.ra, e.dec)) < e.error_radius"""
COUNT = "SELECT COUNT(*) AS n FROM saxgrbmgrb WHERE ra IS NULL OR dec IS NULL"


@pytest.fixture(scope="module")
def targets() -> Table:
    rng = np.random.default_rng(3)
    places = CORNERS + list(zip(rng.uniform(0, 360, 60), np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), strict=True))
    ra, dec = np.array(places).T
    n = len(places)
    columns = {"radius_deg": np.full(n, 1 / 3600), "reach_deg": np.full(n, 0.5), "years": np.full(n, 16.0)}
    return Table({"target_id": np.arange(n) + 2**40, "ra": ra, "dec": dec, **columns})


@pytest.fixture(scope="module")
def sources(targets: Table) -> pa.Table:
    """Sources a few arcsec to a fraction of a degree from the targets, some fast, some without proper motion."""
    rng = np.random.default_rng(4)
    at = np.column_stack([np.repeat(targets["ra"], 20), np.repeat(targets["dec"], 20)])
    ra, dec = heasarc.offset(at, 10 ** rng.uniform(-4.5, -0.2, len(at)), rng.uniform(0, 360, len(at)))
    pm = rng.normal(0, 20_000, (2, len(at)))
    none = rng.random(len(at)) < 0.3
    columns = {"source_id": np.arange(len(at)) + 2**60, "ra": ra, "dec": dec}
    return pa.table(
        {
            **columns,
            "pmra": pa.array(pm[0], mask=none),
            "pmdec": pa.array(pm[1], mask=none),
            "has_epoch_photometry": rng.random(len(at)) < 0.5,
        }
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, targets: Table, sources: pa.Table) -> Iterator[Sandbox]:
    places = list(zip(targets["ra"].tolist(), targets["dec"].tolist(), strict=True))
    root = tmp_path_factory.mktemp("archives")
    with Sandbox.start(root, archives=["heasarc"], scale=0.05, targets=places) as box:
        box.services["sky"] = TapService(box, "/sky", {"gaiadr3.gaia_source": sources})
        yield box


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox() as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> TapService:
    values = pa.table(
        {
            "n": pa.array([1, None, 2**62, -5, 0], pa.int64()),
            "i": pa.array([None, 1, 2, 3, 2**31 - 1], pa.int32()),
            "x": pa.array([1 / 3, None, -1e300, 2.5, 5e-324]),
            "f": pa.array([1.1, 2, None, 3, 4], pa.float32()),
            "b": pa.array([True, False, None, True, False]),
            "s": pa.array(["a<b", "", None, "\"&'", "ä µ"]),
        }
    )
    fields = [one.with_metadata({"unit": "mas.yr**-1"}) if one.name == "x" else one for one in values.schema]
    return service_of(box, {"t": values.cast(pa.schema(fields)), "many": pa.table({"k": np.arange(1000)})})


def service_of(box: Sandbox, tables: dict[str, pa.Table], **options: Any) -> TapService:
    box.services["test"] = TapService(box, "/test/tap", tables, **options)
    return box.services["test"]


class TidySession(requests.Session):
    """Closes what pyvo streams and leaves unread."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[requests.Response] = []

    def send(self, *args: Any, **options: Any) -> requests.Response:
        answer = super().send(*args, **options)
        self.answers += [*answer.history, answer]
        return answer

    def close(self) -> None:
        for answer in self.answers:
            answer.close()
        super().close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with TidySession() as session:
        yield session


def client(service: TapService, session: requests.Session) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(service.url, session=session)


def separations(targets: Table, ra: Any, dec: Any) -> np.ndarray:
    ours = SkyCoord(targets["ra"], targets["dec"], unit="deg")
    theirs = SkyCoord(np.asarray(ra, float), np.asarray(dec, float), unit="deg")
    return ours[:, None].separation(theirs[None, :]).to_value(u.deg)


# --- answers ---


def test_values_nulls_types_and_units_arrive(service: TapService, session: requests.Session) -> None:
    for run in ["run_sync", "run_async"]:
        table = getattr(client(service, session), run)("SELECT * FROM t").to_table()
        assert table.colnames == ["n", "i", "x", "f", "b", "s"]
        assert [table[name].dtype.kind + str(table[name].dtype.itemsize) for name in "nixf"] == ["i8", "i4", "f8", "f4"]
        assert table["n"].tolist() == [1, None, 2**62, -5, 0]
        assert table["i"].tolist() == [None, 1, 2, 3, 2**31 - 1]
        assert table["x"].tolist() == [1 / 3, None, -1e300, 2.5, 5e-324]
        assert np.isnan(np.asarray(table["x"])[1])
        assert table["f"].tolist() == [np.float32(1.1), 2, None, 3, 4]
        assert table["b"].tolist() == [True, False, None, True, False]
        assert [one or None for one in table["s"].tolist()] == ["a<b", None, None, "\"&'", "ä µ"]
        assert table["x"].unit == u.mas / u.yr
        assert table["n"].unit is None


def test_top_count_and_aliases(service: TapService, session: requests.Session) -> None:
    tap = client(service, session)
    assert len(tap.run_sync("SELECT TOP 5 * FROM many")) == 5
    assert tap.run_sync("select top 3 k from many order by k desc")["k"].tolist() == [999, 998, 997]
    assert tap.run_sync("SELECT DISTINCT TOP 2 k * 0.5 AS half FROM many ORDER BY half")["half"].tolist() == [0, 0.5]
    assert tap.run_sync("SELECT COUNT(*) AS n, SUM(k) AS total FROM many")[0].values() is not None
    assert len(tap.run_sync("SELECT k FROM many WHERE k < 0")) == 0
    assert service.queries[0] == "SELECT TOP 5 * FROM many"


def test_vosi_documents(service: TapService, session: requests.Session) -> None:
    for name in ["capabilities", "tables", "availability"]:
        assert httpx.get(f"{service.url}/{name}").status_code == 200
        tap = client(service, session)
        if name == "tables":
            assert list(tap.tables.keys()) == ["t", "many"]
            assert [one.name for one in tap.tables["t"].columns] == ["n", "i", "x", "f", "b", "s"]
        elif name == "capabilities":
            assert [one.ivo_id for one in tap.upload_methods] == ["ivo://ivoa.net/std/TAPRegExt#upload-inline"]
        assert httpx.get(f"{service.url}/nothing").status_code == 404


# --- limits ---


def test_overflow_is_said_after_the_table(service: TapService, session: requests.Session) -> None:
    tap = client(service, session)
    service.hard_limit = 100
    with pytest.warns(pyvo.dal.exceptions.DALOverflowWarning):
        assert len(tap.run_sync("SELECT * FROM many", maxrec=500)) == 100
    for data, rows, over in (
        ({"MAXREC": "10"}, 10, True),
        ({"MAXREC": "0"}, 0, True),
        ({}, 100, True),
        ({"MAXREC": "5"}, 5, True),
    ):
        text = httpx.post(f"{service.url}/sync", data={"QUERY": "SELECT * FROM many", **data}).text
        assert (text.count("<TR>"), "OVERFLOW" in text.partition("</TABLE>")[2]) == (rows, over)
    service.hard_limit = None
    for maxrec in ("1000", "2000", ""):
        text = httpx.post(f"{service.url}/sync", data={"QUERY": "SELECT * FROM many", "MAXREC": maxrec}).text
        assert (text.count("<TR>"), "OVERFLOW" in text) == (1000, False)


def test_a_silent_cap_says_nothing(box: Sandbox, session: requests.Session) -> None:
    service = service_of(box, {"many": pa.table({"k": np.arange(1000)})}, silent_cap=300)
    tap = client(service, session)
    for run in (tap.run_sync, tap.run_async):
        result = run("SELECT * FROM many", maxrec=900)
        assert len(result) == 300
        assert result.query_status != "OVERFLOW"
    service.hard_limit = 200
    with pytest.warns(pyvo.dal.exceptions.DALOverflowWarning):
        assert len(tap.run_sync("SELECT * FROM many")) == 200


# --- what is refused ---


def test_bad_queries_are_errors_in_both_modes(service: TapService, session: requests.Session) -> None:
    for query, message in [
        ("SELECT nothing FROM many", "nothing"),
        ("SELECT * FROM absent", "absent"),
        ("SELEKT", "one SELECT"),
        ("DROP TABLE many", "one SELECT"),
        ("SELECT 1 AS a; SELECT 2 AS b", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/hostname')", "query failed"),
        ("SELECT time FROM many", "reserved word"),
        ("SELECT * FROM tap_upload.absent", "absent"),
    ]:
        tap = client(service, session)
        with pytest.raises(pyvo.dal.DALQueryError, match=message):
            tap.run_sync(query)
        with pytest.raises(pyvo.dal.DALQueryError, match=message):
            tap.run_async(query)
        answer = httpx.get(f"{service.url}/sync", params={"QUERY": query, "LANG": "ADQL"})
        assert answer.status_code == 400
        assert 'name="QUERY_STATUS" value="ERROR"' in answer.text
        assert len(tap.run_sync("SELECT * FROM many")) == 1000


def test_bad_parameters_are_errors(service: TapService) -> None:
    for data in (
        {"MAXREC": "many"},
        {"RESPONSEFORMAT": "csv"},
        {"UPLOAD": "t,http://example.org/t"},
        {"UPLOAD": "t,param:gone"},
    ):
        answer = httpx.post(f"{service.url}/sync", data={"QUERY": "SELECT * FROM many", **data})
        assert (answer.status_code, "ERROR" in answer.text) == (400, True)


def test_an_upload_that_is_no_votable_is_an_error(service: TapService) -> None:
    data = {"QUERY": "SELECT * FROM tap_upload.a", "UPLOAD": "a,param:k"}
    answer = httpx.post(f"{service.url}/sync", data=data, files={"k": ("a.xml", b"\r\n--no votable")})
    assert (answer.status_code, "upload a cannot be read" in answer.text) == (400, True)


# --- uploads and the shapes of cross-matches ---


def test_several_uploads_with_nulls(service: TapService, session: requests.Session) -> None:
    first = Table({"k": [1, 2, 3], "who": ["x", "ÿ", "z"]})
    second = Table({"k": [2, 3], "v": np.ma.array([0.5, 9], mask=[False, True])})
    query = "SELECT a.k, a.who, b.v FROM tap_upload.a AS a JOIN tap_upload.b AS b ON a.k = b.k ORDER BY a.k"
    for run in (client(service, session).run_sync, client(service, session).run_async):
        rows = run(query, uploads={"a": first, "b": second}).to_table()
        assert rows["who"].tolist() == ["ÿ", "z"]
        assert rows["v"].tolist() == [0.5, None]


def test_shape_a_against_brute_force(
    archive: Sandbox, session: requests.Session, targets: Table, sources: pa.Table
) -> None:
    result = client(archive.services["sky"], session).run_async(SHAPE_A, uploads={"targets": targets}).to_table()
    apart = separations(targets, sources["ra"], sources["dec"])
    pm = np.hypot(np.asarray(sources["pmra"], float), np.asarray(sources["pmdec"], float))
    moved = np.nan_to_num(16.0 * pm / 3_600_000.0)
    inside = (apart <= 0.5) & ((apart <= 1 / 3600) | (apart <= 1 / 3600 + moved))
    expected = {(int(targets["target_id"][t]), sources["source_id"][s].as_py()) for t, s in zip(*inside.nonzero())}  # noqa: B905
    assert set(zip(result["target_id"].tolist(), result["source_id"].tolist(), strict=True)) == expected
    assert len(expected) > 100
    found = {row for row, _ in expected}
    assert {int(one) for one in targets["target_id"][:4]} <= found  # the wrap at 0 h, and both poles


def test_shape_b_and_c_against_brute_force(archive: Sandbox, session: requests.Session, targets: Table) -> None:
    places = list(zip(targets["ra"].tolist(), targets["dec"].tolist(), strict=True))
    tap = client(archive.services["heasarc"], session)
    bursts = heasarc.saxgrbmgrb(places, seed=20210126, scale=0.05)
    apart = separations(targets, bursts["ra"], bursts["dec"])
    radius = np.asarray(bursts["error_radius"], float)
    with np.errstate(invalid="ignore"):
        inside = (radius < 3) & (apart <= radius)
    names = bursts["name"].to_pylist()
    expected = {(int(targets["target_id"][t]), names[e]) for t, e in zip(*inside.nonzero(), strict=True)}
    result = tap.run_sync(SHAPE_B, uploads={"targets": targets})
    assert set(zip(result["target_id"].tolist(), result["name"].tolist(), strict=True)) == expected
    assert len(expected) >= len(targets) // 2

    events = heasarc.icecubepsc(places, seed=20210126, scale=0.05)
    apart = separations(targets, events["ra"], events["dec"])
    inside = (apart <= 2) & (apart < np.asarray(events["error_radius"]))
    times = events["time"].to_numpy()
    expected = {(int(targets["target_id"][t]), times[e]) for t, e in zip(*inside.nonzero(), strict=True)}
    result = tap.run_sync(SHAPE_C, uploads={"targets": targets})
    assert set(zip(result["target_id"].tolist(), result["time"].tolist(), strict=True)) == expected


def test_shape_d_single_cones(archive: Sandbox, session: requests.Session, sources: pa.Table) -> None:
    for ra, dec in CORNERS:
        place = Table({"ra": [ra], "dec": [dec]})
        ids, has = sources["source_id"].to_numpy(), sources["has_epoch_photometry"].to_numpy()
        for radius in (0.00028, 0.1):
            query = f"SELECT source_id, ra, dec FROM gaiadr3.gaia_source WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra:.6f}, {dec:.6f}, {radius}))"  # noqa: E501
            near = separations(place, sources["ra"], sources["dec"])[0] <= radius
            tap = client(archive.services["sky"], session)
            assert set(tap.run_sync(query)["source_id"].tolist()) == set(ids[near].tolist())
            only = tap.run_sync(query + " AND has_epoch_photometry = 'True'")
            assert set(only["source_id"].tolist()) == set(ids[near & has].tolist())


# --- jobs ---


def test_the_life_of_a_job(service: TapService, session: requests.Session) -> None:
    job = client(service, session).submit_job("SELECT * FROM many", maxrec=2000)
    assert job.phase == "PENDING"
    assert job.query == "SELECT * FROM many"
    job.execution_duration = 77
    assert job.execution_duration.to_value("s") == pytest.approx(77)
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    job.destruction = tomorrow
    assert job.destruction == Time(tomorrow)
    job.query = "SELECT TOP 7 * FROM many"
    job.run().wait()
    assert job.phase == "COMPLETED"
    assert httpx.get(f"{job.url}/phase").text == "COMPLETED"
    assert httpx.get(f"{job.url}/error").text == ""
    assert job.result_uri.endswith("/results/result")
    assert len(job.fetch_result()) == 7
    url = job.url
    job.delete()
    assert httpx.get(url).status_code == 404
    assert service.jobs == {}


def test_uploads_may_come_after_the_job(service: TapService, session: requests.Session) -> None:
    with client(service, session).submit_job("SELECT * FROM tap_upload.a") as job:
        job.upload(a=Table({"k": [4, 5]}))
        assert job.run().wait().fetch_result()["k"].tolist() == [4, 5]


def test_an_error_is_told(service: TapService, session: requests.Session) -> None:
    with client(service, session).submit_job("SELECT gone FROM many") as job:
        job.run().wait()
        assert job.phase == "ERROR"
        assert "gone" in job.job.errorsummary.message.content
        assert "gone" in httpx.get(f"{job.url}/error").text
        assert httpx.get(f"{job.url}/results/result").status_code == 404


def test_jobs_beyond_the_running_wait_in_the_queue(box: Sandbox, session: requests.Session) -> None:
    tap = client(service_of(box, {"many": pa.table({"k": np.arange(3000)})}, running=1), session)
    slow = "SELECT SUM(a.k * b.k + c.k) AS s FROM many AS a, many AS b, many AS c"
    with tap.submit_job(slow) as first, tap.submit_job("SELECT TOP 1 * FROM many") as second:
        first.run()
        assert first.phase == "EXECUTING"
        second.run()
        assert second.phase == "QUEUED"
        first.abort()
        assert first.phase == "ABORTED"
        assert second.wait().phase == "COMPLETED"


# --- faults ---


def test_error_with_status_200(service: TapService, session: requests.Session) -> None:
    tap = client(service, session)
    service.fault("error-200", times=2)
    answer = httpx.post(f"{service.url}/sync", data={"QUERY": "SELECT * FROM many"})
    assert (answer.status_code, "the database went away" in answer.text) == (200, True)
    with pytest.raises(pyvo.dal.DALQueryError, match="went away"):
        tap.run_async("SELECT * FROM many")
    assert len(tap.run_sync("SELECT * FROM many")) == 1000


def test_a_job_that_fails(service: TapService, session: requests.Session) -> None:
    tap = client(service, session)
    service.fault("job-error")
    with pytest.raises(pyvo.dal.DALQueryError, match="the database went away"):
        tap.run_async("SELECT * FROM many")
    assert len(tap.run_async("SELECT * FROM many")) == 1000


def test_a_job_that_is_aborted_by_the_service(service: TapService, session: requests.Session) -> None:
    service.fault("job-aborted")
    with client(service, session).submit_job("SELECT * FROM many") as job:
        with pytest.raises(pyvo.dal.DALServiceError, match="not active"):
            job.run().wait()
        assert job.phase == "ABORTED"


def test_a_job_that_hangs(service: TapService, session: requests.Session) -> None:
    tap = client(service, session)
    service.fault("job-hangs")
    service.longest_wait = 0.2
    with tap.submit_job("SELECT * FROM many") as job:
        job.run()
        assert "EXECUTING" in httpx.get(job.url, params={"WAIT": "-1"}).text
        assert len(tap.run_async("SELECT * FROM many")) == 1000
        job.abort()
        assert job.phase == "ABORTED"
    service.fault("job-hangs")
    with tap.submit_job("SELECT * FROM many") as job:
        job.execution_duration = 1
        job.run()
        service.longest_wait = 10
        assert "ABORTED" in httpx.get(job.url, params={"WAIT": "5"}).text


def test_closing_ends_what_hangs(session: requests.Session) -> None:
    with Sandbox() as box:
        service = service_of(box, {"many": pa.table({"k": [1]})})
        service.fault("job-hangs")
        client(service, session).submit_job("SELECT * FROM many").run()

    assert not [one for one in service._threads if one.is_alive()]


def test_unknown_faults_and_faults_of_the_server(service: TapService, box: Sandbox, session: requests.Session) -> None:
    with pytest.raises(ValueError, match="unknown fault"):
        service.fault("sulks")
    box.fault("/test/tap/sync", "status:503")
    with pytest.raises((pyvo.dal.DALServiceError, pyvo.dal.DALFormatError)):
        client(service, session).run_sync("SELECT * FROM many")
    assert len(client(service, session).run_sync("SELECT * FROM many")) == 1000


# --- the tables of the HEASARC ---


def test_tables_of_the_heasarc(archive: Sandbox, session: requests.Session, targets: Table) -> None:
    tap = client(archive.services["heasarc"], session)
    assert archive.endpoints["heasarc"].endswith("/heasarc/tap")
    assert list(tap.tables.keys()) == ["fermigtrig", "saxgrbmgrb", "icecubepsc", "xmmssc"]
    assert [one.unit for one in tap.tables["xmmssc"].columns if one.name == "error_radius"] == ["arcsec"]
    lost = tap.run_sync(COUNT)["n"][0]
    assert 0 < lost < 30
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        assert len(tap.run_sync("SELECT TOP 5 * FROM saxgrbmgrb").to_table()) == 5
