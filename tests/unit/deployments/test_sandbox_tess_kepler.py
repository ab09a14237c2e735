"""The stand-in for MAST's light curves: the portal's requests and answers, and files with byte ranges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pyvo.dal import TAPService
from pyvo.dal.exceptions import DALQueryError

from deployments.sandbox.mast_caom import TAP_PATH
from deployments.sandbox.mast_stars import star, stars
from deployments.sandbox.server import Sandbox
from deployments.sandbox.tess_kepler import COLUMNS_CONFIG, DOWNLOAD, INVOKE, Service
from lake.science.sky import separation_arcsec
from tasks.sources.tess_kepler.mast_fits import read_product
from tasks.sources.tess_kepler.mast_products import named

# Tests of the archives see what is wrong with it, too.
pytestmark = pytest.mark.long

SEED = 11
PLACES = [(0.00001, 10.0), (359.99999, -35.0), (123.0, 89.9999), (301.0, -89.9), (77.3582, 5.6931)]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("tess_kepler")
    with Sandbox.start(root, archives=["tess_kepler"], seed=SEED, scale=0.02, targets=PLACES) as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Service:
    served: Service = box.services["tess_kepler"]
    return served


def invoke(box: Sandbox, service: str, params: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = {"service": service, "params": params, "format": "json", **more}
    reply = httpx.post(box.url(INVOKE), data={"request": json.dumps(asked)})
    assert reply.status_code == 200
    answer: dict[str, Any] = reply.json()
    return answer


def by_filter(box: Sandbox, **values: Any) -> list[dict[str, Any]]:
    filters = [{"paramName": name, "values": value} for name, value in values.items()]
    answer = invoke(box, "Mast.Caom.Filtered", {"columns": "*", "filters": filters})
    rows: list[dict[str, Any]] = answer["data"]
    assert answer["status"] == "COMPLETE"
    assert {field["name"] for field in answer["fields"]} == set().union(*rows)
    return rows


def test_observations_by_values_ranges_and_free_text(box: Sandbox, service: Service) -> None:
    authors = {row["provenance_name"] for row in by_filter(box, project=["TESS", "Kepler", "K2"])}
    assert authors == {"SPOC", "TESS-SPOC", "QLP", "Kepler", "K2", "EVEREST", "K2SFF"}
    assert {row["project"] for row in by_filter(box, provenance_name=["everest"])} == {"K2"}
    assert {row["t_exptime"] for row in by_filter(box, t_exptime=[{"min": 10, "max": 130}])} == {20, 60, 120}
    like = {"paramName": "target_name", "values": [], "freeText": "kplr%"}
    rows = invoke(box, "Mast.Caom.Filtered", {"columns": "*", "filters": [like]})["data"]
    assert {row["obs_collection"] for row in rows} == {"Kepler"}
    everything = [row["obsid"] for row in by_filter(box, intentType=["science"])]
    assert len(set(everything)) == len(everything) == len(service._stars) - 1, "two quarters are one observation"


def test_every_target_has_something_within_0_8_arcsec(box: Sandbox) -> None:
    upload = {"fields": [], "data": [{"lon": ra, "lat": dec} for ra, dec in PLACES]}
    params = {"raColumn": "lon", "decColumn": "lat", "radius": 0.8 / 3600}
    rows = invoke(box, "Mast.Caom.Crossmatch", params, data=upload)["data"]
    assert {row["dataproduct_type"] for row in rows} == {"timeseries", "image"}, "whatever MAST has there"
    for ra, dec in PLACES:
        near = [row for row in rows if separation_arcsec(ra, dec, row["s_ra"], row["s_dec"]) <= 0.8 + 1e-6]
        assert len(near) >= 2
        cone = {"position": f"{ra}, {dec}, {0.8 / 3600}", "columns": "*", "filters": []}
        assert {row["obsid"] for row in near} <= {
            row["obsid"] for row in invoke(box, "Mast.Caom.Filtered.Position", cone)["data"]
        }


def test_files_are_what_they_are_listed_as(box: Sandbox, service: Service) -> None:
    rows = by_filter(box, dataproduct_type=["timeseries"])
    obsids = ",".join(row["obsid"] for row in rows)
    products = invoke(box, "Mast.Caom.Products", {"obsid": obsids})["data"]
    light = [row for row in products if named(row["productFilename"])]
    assert len(products) == 2 * len(light) == 2 * len(service._stars), "with their pixels"
    by_obsid = {row["obsid"]: row for row in rows}
    for row in light:
        reply = httpx.get(f"{box.url(DOWNLOAD)}?uri={row['dataURI']}")
        assert len(reply.content) == row["size"]
        product = read_product(reply.content, row["productFilename"])
        observation = by_obsid[row["parent_obsid"]]
        assert (product.ra, product.dec) == (observation["s_ra"], observation["s_dec"])
        assert str(product.target) in observation["target_name"]
        author = observation["provenance_name"].lower().replace("-", "_")
        assert product.pipeline.name == author
        assert observation["sequence_number"] in (product.sequence, None)
        assert row["dataURI"].startswith("mast:")
        assert row["dataURI"].endswith(f"/{row['productFilename']}")


def test_downloads_go_on_where_they_broke_off(box: Sandbox, service: Service) -> None:
    (uri, *_) = service._stars
    url = f"{box.url(DOWNLOAD)}?uri={uri}"
    whole = httpx.get(url)
    rest = httpx.get(url, headers={"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]})
    assert (whole.status_code, rest.status_code) == (200, 206)
    assert rest.content == whole.content[1000:]
    assert rest.headers["Content-Range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
    assert httpx.get(f"{box.url(DOWNLOAD)}?uri=mast:TESS/product/none_lc.fits").status_code == 404


def test_pages_and_what_makes_no_sense(box: Sandbox) -> None:
    everything = {"columns": "*", "filters": []}
    answer = invoke(box, "Mast.Caom.Filtered", everything, pagesize=4, page=2)
    total = answer["paging"]["rowsTotal"]
    assert answer["paging"] == {
        "page": 2,
        "pageSize": 4,
        "pagesFiltered": -(-total // 4),
        "rows": 4,
        "rowsFiltered": total,
        "rowsTotal": total,
    }
    whole = invoke(box, "Mast.Caom.Filtered", everything)["data"]
    assert answer["data"] == whole[4:8]
    for service, params in (("Mast.Caom.Nothing", {}), ("Mast.Caom.Filtered", {"filters": [{"paramName": "x"}]})):
        failed = invoke(box, service, params)
        assert failed["status"] == "ERROR"
        assert failed["msg"]
    assert httpx.post(box.url(INVOKE), data={"request": "{"}).json()["status"] == "ERROR"


def test_columns_as_astroquery_asks_for_them(box: Sandbox) -> None:
    kinds = httpx.post(box.url(COLUMNS_CONFIG), data={"colConfigId": "Mast.Caom.Cone"}).json()
    assert kinds["t_exptime"]["vot.datatype"] == "double"
    assert kinds["target_name"]["vot.datatype"] == "char"


def test_the_tap_service_has_the_portals_rows_and_the_limits_of_mast(box: Sandbox, service: Service) -> None:
    caom = TAPService(box.url(TAP_PATH))
    one = star("kepler", 42, 1, (10.0, 20.0), n=service.n)
    other = star("kepler", 42, 2, (10.0, 20.0), n=service.n + 1)
    joined = (
        "FROM dbo.obspointing AS o JOIN dbo.caomplane AS p ON p.planetid = o.objid "
        "JOIN dbo.caomartifact AS a ON a.planetid = p.planetid WHERE o.target_name IN ('kplr000000042')"
    )
    service.add(one)
    service.add(other)
    files = caom.search(f"SELECT a.productfilename, a.contentlength {joined} AND a.contentlength > 9").to_table()
    assert dict(zip(files["productfilename"], files["contentlength"], strict=True)) == {
        each.name: len(each.make()) for each in (one, other)
    }
    assert len(caom.search("SELECT obsid FROM dbo.obspointing WHERE target_name = 'kplr000000042'")) == 1
    service.remove(other)
    assert len(caom.search(f"SELECT a.datauri {joined}")) == 2, "a light curve and pixels"
    service.remove(one)
    assert len(caom.search("SELECT obsid FROM dbo.obspointing WHERE target_name = 'kplr000000042'")) == 0
    for refused in (
        "SELECT * FROM TAP_UPLOAD.t1",
        "SELECT * FROM dbo.obspointing WHERE CONTAINS(POINT(s_ra, s_dec), CIRCLE(1, 2, 3)) = 1",
    ):
        with pytest.raises(DALQueryError):
            caom.search(refused)


def test_the_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    one, again, other = (stars(PLACES, seed=seed, n=20) for seed in (SEED, SEED, SEED + 1))
    made = [[(file.uri, file.place) for file in files] for files in (one, again, other)]
    assert made[0] == made[1] != made[2]
    place = PLACES[4]
    bodies = [star("qlp", 7, 1, place, seed=seed, n=20).make() for seed in (1, 1, 2)]
    assert bodies[0] == bodies[1] != bodies[2]
    first, second = (read_product(star("spoc", 7, sector, place, n=20).make(), "x") for sector in (1, 2))
    assert first.mjd[-1] < second.mjd[0]
