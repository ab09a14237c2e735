"""The HCV stand-in: the service's addresses and parameters, sources at targets, light curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from deployments.sandbox import hcv
from deployments.sandbox.server import Sandbox

# Tests of the archives see what is wrong with it, too.
pytestmark = pytest.mark.long

PLACES = [(0.00001, 10.0), (359.99999, -35.0), (123.0, 89.9999), (301.0, -89.99995)] + [
    (7.0 * n, 40 * np.sin(n)) for n in range(36)
]
SEED = 7


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("archives")
    with Sandbox.start(root, archives=["hcv"], seed=SEED, scale=0.005, targets=PLACES) as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Iterator[hcv.Service]:
    service = box.services["hcv"]
    yield service
    service.page_rows, service.one_page, service.forget = hcv.PAGE_ROWS, False, set()


def ask(service: hcv.Service, table: str, **params: Any) -> list[dict[str, Any]]:
    answer = httpx.get(f"{service.url}/{table}.json", params=params)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), answer.text
    told = answer.json()
    names = [column["name"] for column in told["info"]]
    return [dict(zip(names, row, strict=True)) for row in told["data"]]


def test_columns_are_those_of_the_real_catalogue(service: hcv.Service, data_dir: Path) -> None:
    real = (data_dir / "hst_hcv" / "hcv_summary_ic1613_20rows.csv").read_text().splitlines()[0].split(",")
    ra, dec = PLACES[5]
    (row, *_) = ask(service, "hcvsummary", ra=ra, dec=dec, radius=0.001)
    assert list(row) == real
    assert row["Filter"].split("_")[0] in {"ACS", "WFC3", "WFPC2"}
    described = httpx.get(f"{service.url}/hcvsummary/metadata").json()
    assert [column["name"] for column in described] == real


def test_every_target_has_a_source_and_cones_are_spherical(service: hcv.Service) -> None:
    sky = SkyCoord(service.ra * u.deg, service.dec * u.deg)
    assert len(set(service.ids.tolist())) == len(service.ids)
    counts = []
    for ra, dec in PLACES:
        distances = SkyCoord(ra * u.deg, dec * u.deg).separation(sky).deg
        wanted = service.ids[distances <= 1.2 / 3600].tolist()
        rows = ask(service, "hcvsummary", ra=ra, dec=dec, radius=1.2 / 3600)
        assert list(dict.fromkeys(row["MatchID"] for row in rows)) == sorted(wanted)
        counts.append(len(wanted))
    assert min(counts) >= 1
    assert max(counts) == 2


def test_a_light_curve_is_what_its_summary_says(service: hcv.Service) -> None:
    for place in range(0, len(service.ids), 40):
        number = int(service.ids[place])
        curves = ask(service, "hcv", MatchID=number)
        assert curves == hcv.light_curves(number, SEED)
        for row in ask(service, "hcvsummary", MatchID=number):
            points = [point for point in curves if point["Filter"] == row["Filter"]]
            assert row["NumLC"] == len(points) >= 5
            assert ask(service, "hcv", MatchID=number, Filter=row["Filter"]) == points
            known = [point["CorrMag"] for point in points if point["CorrMag"] is not None]
            assert row["MeanCorrMag"] == pytest.approx(np.mean(known))
    assert ask(service, "hcv", MatchID=3) == []


def test_csv_is_the_same_and_nothing_is_an_empty_body(service: hcv.Service) -> None:
    ra, dec = PLACES[5]
    asked = {"ra": ra, "dec": dec, "radius": 0.001}
    text = httpx.get(f"{service.url}/hcvsummary.csv", params=asked).text
    listed = list(csv.DictReader(io.StringIO(text)))
    assert [row["MatchID"] for row in listed] == [str(row["MatchID"]) for row in ask(service, "hcvsummary", **asked)]
    assert httpx.get(f"{service.url}/hcvsummary.csv", params={**asked, "radius": 1e-9}).content == b""


def test_pages_and_columns(service: hcv.Service) -> None:
    number = int(service.ids[0])
    whole = ask(service, "hcv", MatchID=number)
    parts = [ask(service, "hcv", matchid=number, pagesize=4, page=page) for page in range(1, 30)]
    assert [row for part in parts for row in part] == whole
    assert ask(service, "hcv", MatchID=number, columns="[mjd,CorrMag]")[0] == {
        "MJD": whole[0]["MJD"],
        "CorrMag": whole[0]["CorrMag"],
    }
    service.page_rows = 3
    assert len(ask(service, "hcv", MatchID=number, pagesize=1000)) == 3
    service.one_page = True
    assert ask(service, "hcv", MatchID=number, page=2) == whole[:3]
    service.forget = {number}
    assert ask(service, "hcv", MatchID=number) == []


def test_what_makes_no_sense_is_refused(service: hcv.Service) -> None:
    for asked in [
        "hcvsummary.json",
        "hcv.json?ra=1&dec=2&radius=0.1",
        "hcvsummary.json?ra=1&dec=2&radius=0.6",
        "hcvsummary.json?ra=1&dec=91&radius=0.1",
        "hcvsummary.json?ra=1",
        "hcv.json?MatchID=x",
        "hcv.json?MatchID=1&page=0",
        "hcv.json?MatchID=1&columns=[flux]",
    ]:
        assert httpx.get(f"{service.url}/{asked}").status_code == 400
        assert httpx.get(f"{service.url}/summary.json?MatchID=1").status_code == 404
        assert httpx.get(f"{service.url}/hcv.fits?MatchID=1").status_code == 404


def test_the_same_arguments_give_the_same_sky() -> None:
    one, again = (hcv.positions(PLACES, seed=SEED, n_field=100) for _ in range(2))
    other = hcv.positions(PLACES, seed=SEED + 1, n_field=100)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[1], other[1])
    assert np.abs(one[2]).max() <= 90
    assert one[1].min() >= 0
    assert one[1].max() < 360
