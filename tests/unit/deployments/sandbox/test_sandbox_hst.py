"""The stand-in for MAST's missions API: what astroquery asks of it, files as calibration leaves them, known sources."""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astroquery.mast import MastMissionsClass, conf

from deployments.sandbox.hst import API, COLUMNS, Service
from deployments.sandbox.hst_datasets import Dataset, association, files, special, survey, write_files
from deployments.sandbox.hst_events import BROKEN, SETUPS, Exposure
from deployments.sandbox.hst_files import BAD_PROPOSAL, write_corrtag, write_tag, write_x1d
from deployments.sandbox.server import Sandbox
from lake.errors import GranuleRejected
from tasks.sources.hst_timetag.events import EventTable, open_events
from tasks.sources.hst_timetag.extract import Curve, Selection, extract
from tasks.sources.hst_timetag.quality import REASONS, reasons
from tasks.sources.hst_timetag.stis import preparation

PLACES = [(0.00001, 10.0), (123.0, 89.9999), (77.3582, -5.6931)]
RULES = dict(
    zip(BROKEN, ("Bad EXPFLAG", "No events", "Non-linear time", "Singular event", "Bad Proposal"), strict=False)
)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox.start(tmp_path_factory.mktemp("hst"), archives=["hst"], seed=4, scale=0.02, targets=PLACES) as box:
        yield box


@pytest.fixture
def service(box: Sandbox) -> Iterator[Service]:
    served: Service = box.services["hst"]
    before = dict(served.datasets)
    yield served
    served.datasets = before
    served.by_exposure, served.lower_suffixes, served.lost_rows = False, False, 0


@pytest.fixture
def mast(box: Sandbox) -> MastMissionsClass:
    missions = MastMissionsClass(mission="hst")
    missions._service_api_connection.SERVICE_URL = box.endpoints["hst"]
    missions.mission = "hst"
    with conf.set_temp("server", box.endpoints["hst"]):
        missions.get_column_list()
    return missions


def search(box: Sandbox, *conditions: dict[str, Any], **more: Any) -> dict[str, Any]:
    asked = {"conditions": list(conditions), "limit": 5000, "offset": 0, "select_cols": None, **more}
    reply = httpx.post(box.url(f"{API}/search"), json=asked)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def names(answer: dict[str, Any]) -> list[str]:
    return [row["sci_data_set_name"] for row in answer["results"]]


def write(folder: Path, exposure: Exposure) -> list[Path]:
    if exposure.of.instrument == "STIS":
        return [write_tag(folder / f"{exposure.rootname[:6]}010_tag.fits", [exposure])]
    segments = exposure.segments if exposure.of.detector == "FUV" else [""]
    return [
        write_corrtag(folder / f"{exposure.rootname}_corrtag{'_' * bool(one)}{one.lower()}.fits", exposure, one)
        for one in segments
    ]


def opened(paths: Sequence[Path], stack: ExitStack) -> list[EventTable]:
    return [table for path in paths for table in stack.enter_context(open_events(path))]


def curve(folder: Path, exposure: Exposure, **selection: Any) -> Curve:
    with ExitStack() as stack:
        tables = opened(write(folder, exposure), stack)
        prepared = {}
        if exposure.of.instrument == "STIS":
            x1d = None if exposure.of.is_image else write_x1d(folder / f"{exposure.rootname}_x1d.fits", exposure)
            prepared["prepared"] = preparation(tables[0], x1d, {})[0]
        return extract(tables, Selection(**selection), **prepared)


def column(found: Curve, name: str) -> np.ndarray:
    return np.array(found.table[name].to_pylist(), float)


# --- the service ---


def test_astroquery_finds_exposures_and_their_products(mast: MastMissionsClass, service: Service) -> None:
    found = mast.query_criteria(
        sci_instrume=["COS", "STIS"],
        sci_operating_mode="*TIME*",
        sci_status="PUBLIC",
        sci_aec="S",
        sci_targname="!DARK,!WAVE",
        select_cols=["sci_targname", "sci_mtflag", "sci_central_wavelength"],
        sort_by="sci_data_set_name",
    )
    listed = found["sci_data_set_name"].tolist()
    assert listed == sorted(listed)
    kept = {name for name, one in service.datasets.items() if one.is_public and one.aec == "S" and one.mode != "ACCUM"}
    dark = special(seed=4, length_s=40)["dark"].name
    assert {name.lower() for name in listed} == kept - {dark}
    products = mast.get_product_list(listed[:2])
    assert set(products["dataset"]) == set(listed[:2])
    for name in ("CORRTAG_A", "CORRTAG_B", "X1D"):
        assert len(mast.filter_products(products, file_suffix=[name])) > 0
    service.lower_suffixes = True
    assert len(mast.filter_products(mast.get_product_list(listed[:2]), file_suffix=["X1D"])) == 0


def test_astroquery_searches_a_cone(mast: MastMissionsClass) -> None:
    for ra, dec in PLACES:
        at = SkyCoord(ra, dec, unit="deg")
        found = mast.query_criteria(coordinates=at, radius=0.05, sci_instrume="COS,STIS", select_cols=["ang_sep"])
        assert len(found) == 1
        assert found["ang_sep"][0] == pytest.approx(0, abs=1e-6)


def test_conditions_lists_negations_ranges_and_wildcards(box: Sandbox) -> None:
    everything = search(box)
    n = everything["totalResults"]
    assert {row["sci_instrume"] for row in everything["results"]} == {"COS   ", "STIS  "}
    assert search(box, {"sci_obs_type": ""})["totalResults"] == n
    cos = search(box, {"sci_instrume": "COS"})["totalResults"]
    assert 0 < cos < n
    assert search(box, {"sci_instrume": "!COS"})["totalResults"] == n - cos
    assert search(box, {"sci_instrume": "cos,stis"})["totalResults"] == n
    select = {"select_cols": ["sci_data_set_name", "sci_ra", "sci_status", "sci_targname"]}
    for given, test in (
        ("150..160", lambda ra: 150 <= ra <= 160),
        (">=150", lambda ra: ra >= 150),
        ("<100,>160", lambda ra: ra < 100 or ra > 160),
    ):
        rows = search(box, {"sci_ra": given}, **select)["results"]
        assert len(rows) == sum(test(row["sci_ra"]) for row in search(box, **select)["results"])
        assert all(test(row["sci_ra"]) for row in rows)
    jupiter = search(box, {"sci_targname": "jup*3"}, {"sci_mtflag": "T"}, **select)["results"]
    assert [row["sci_targname"] for row in jupiter] == ["JUPITER-NORTH-3"]
    assert len(search(box, {"sci_status": "PROPRIETARY"}, **select)["results"]) == 1


def test_pages_need_an_order(box: Sandbox) -> None:
    whole = names(search(box, sort_by=["sci_data_set_name"]))
    pages = [names(search(box, sort_by=["sci_data_set_name"], limit=4, offset=at)) for at in range(0, len(whole), 4)]
    assert [name for page in pages for name in page] == whole
    down = names(search(box, sort_by=["sci_instrume", "sci_data_set_name"], sort_desc=[False, True]))
    assert down == sorted(whole[: sum(name[0] == "L" for name in whole)], reverse=True) + sorted(
        whole[sum(name[0] == "L" for name in whole) :], reverse=True
    )
    assert len({tuple(names(search(box))) for _ in range(4)}) > 1, "none without asking for it"


def test_what_makes_no_sense_is_refused(box: Sandbox) -> None:
    for asked in ({"conditions": [{"sci_nothing": "x"}]}, {"conditions": [], "select_cols": ["nothing"]}, {}):
        assert httpx.post(box.url(f"{API}/search"), json=asked).status_code == 400
    assert httpx.post(box.url(f"{API}/search"), content=b"{").status_code == 400
    retrieve = box.url(f"{API}/retrieve_product")
    assert httpx.get(retrieve, params={"product_name": "LS0001010/nothing.fits"}).status_code == 404
    secret = special(seed=4, length_s=40)["proprietary"]
    name = f"{secret.name.upper()}/{secret.exposures[0].rootname}_x1d.fits"
    assert httpx.get(retrieve, params={"product_name": name}).status_code == 401


def test_columns_and_answers_look_like_real_ones(box: Sandbox, data_dir: Path) -> None:
    folder = data_dir / "hst_cos_stis"
    real = {
        one["column_name"]: one["qual_type"] for one in json.loads((folder / "mast_missions_columns.json").read_text())
    }
    mine = {one["column_name"]: one["qual_type"] for one in httpx.get(box.url(COLUMNS)).json()}
    assert mine == {name: real[name] for name in mine}
    answer = json.loads((folder / "mast_missions_results.json").read_text())
    ra, dec = PLACES[0]
    made = search(box, target=[f"{ra} {dec}"], radius=3, radius_units="arcminutes")
    assert set(made) == set(answer)
    assert {"search_key", "search_pos", "ang_sep"} <= set(made["results"][0])
    shared = set(made["results"][0]) & set(answer["results"][0])
    assert len(shared) > 12
    for name in shared - {"sci_central_wavelength"}:
        kinds = {type(row[name]) for row in answer["results"]} - {type(None)}
        assert isinstance(made["results"][0][name], (*kinds, float) if int in kinds else tuple(kinds)), name
    products = json.loads((folder / "mast_missions_products.json").read_text())["products"]
    listed = httpx.post(box.url(f"{API}/post_list_products"), json={"dataset_ids": names(made)}).json()["products"]
    assert set(listed[0]) == set(products[0])


def test_files_are_as_long_as_listed_and_go_on_where_they_broke_off(box: Sandbox, service: Service) -> None:
    (dataset, *_) = service.datasets.values()
    body = {"dataset_ids": [dataset.name.upper()]}
    for product in httpx.post(box.url(f"{API}/post_list_products"), json=body).json()["products"]:
        url, params = box.url(f"{API}/retrieve_product"), {"product_name": product["uri"]}
        whole = httpx.get(url, params=params)
        assert len(whole.content) == product["size"]
        with fits.open(io.BytesIO(whole.content)) as hdus:
            assert hdus[0].header.get("FILENAME", product["filename"]) == product["filename"]
        headers = {"Range": "bytes=1000-", "If-Range": whole.headers["ETag"]}
        rest = httpx.get(url, params=params, headers=headers)
        assert (rest.status_code, rest.content) == (206, whole.content[1000:])


def test_exposures_by_themselves(box: Sandbox, service: Service) -> None:
    lamp = special(seed=4, length_s=40)["wavecals"]
    assert lamp.name.upper() in names(search(box))
    service.by_exposure = True
    rows = {
        row["sci_data_set_name"]: row
        for row in search(box, select_cols=["sci_data_set_name", "sci_asn_id", "sci_targname"])["results"]
    }
    assert {rows[one.rootname.upper()]["sci_asn_id"] for one in lamp.exposures} == {lamp.name.upper()}
    assert [rows[one.rootname.upper()]["sci_targname"] for one in lamp.exposures].count("WAVE") == 1
    asked = {"dataset_ids": [lamp.exposures[0].rootname.upper()]}
    listed = httpx.post(box.url(f"{API}/post_list_products"), json=asked).json()["products"]
    corrtags = {one["filename"] for one in listed if one["file_suffix"].startswith("CORRTAG")}
    assert corrtags == {f"{lamp.exposures[0].rootname}_corrtag_{segment}.fits" for segment in "ab"}


def test_a_recalibrated_exposure_is_another_file(box: Sandbox, service: Service) -> None:
    dataset = special(seed=4, length_s=40)["periodic"]
    uri = f"{dataset.name.upper()}/{dataset.exposures[0].rootname}_corrtag_a.fits"

    def fetched() -> tuple[Any, ...]:
        reply = httpx.get(box.url(f"{API}/retrieve_product"), params={"product_name": uri})
        row = search(box, {"sci_data_set_name": dataset.name}, select_cols=["sci_generation_date"])["results"][0]
        with fits.open(io.BytesIO(reply.content)) as hdus:
            return reply.headers["ETag"], reply.content, hdus[0].header["CAL_VER"], row["sci_generation_date"]

    before, again = fetched(), fetched()
    assert before == again
    service.recalibrate(dataset.name)
    after = fetched()
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert after[3] > before[3]


# --- what files hold ---


@pytest.mark.parametrize("setup", SETUPS)
def test_known_rates_and_backgrounds_come_back(setup: str, tmp_path: Path) -> None:
    exposure = Exposure(rootname="lsb001avq", setup=setup, length_s=600, gaps=((200, 260),), rate=40, background=0.02)
    found = curve(tmp_path, exposure)
    fraction = column(found, "exposure_fraction")
    seconds = 2 * np.nansum(fraction)
    assert seconds == pytest.approx(540, abs=2.5)
    assert fraction.min() == 0
    gross, background = (np.nansum(column(found, name)) for name in ("gross", "background"))
    heights = {"cos_fuv": 2 * 51, "cos_fuv_low": 2 * 51, "cos_nuv": 3 * 57, "cos_image": 512, "stis_echelle": 20 * 13}
    expected = 40 + 0.02 * heights.get(setup, 2048)
    assert gross / seconds == pytest.approx(expected, abs=4 * np.sqrt(expected / seconds))
    if found.has_background:
        rows = {"cos_nuv": 3 * 72}.get(setup, 2 * 52)
        sky = 0.02 * heights[setup]
        assert background / seconds == pytest.approx(sky, abs=4 * sky / np.sqrt(0.02 * rows * seconds / 3))
        assert (gross - background) / seconds == pytest.approx(40, abs=4 * np.sqrt(expected / seconds) + 0.4)
    else:
        assert setup.startswith("stis") or setup == "cos_image"


def test_airglow_and_flagged_events_are_there_to_be_left_out(tmp_path: Path) -> None:
    (path, _) = write(tmp_path, Exposure(rootname="lsb001avq", setup="cos_fuv"))
    with fits.open(path) as hdus:
        events, header = hdus["EVENTS"].data, hdus["EVENTS"].header
        assert ((events["WAVELENGTH"] > 1301) & (events["WAVELENGTH"] < 1307)).sum() > 500
        assert set(np.unique(events["DQ"])) == {0, 8, 64, 512, 2048, 8192}
        assert np.all(np.diff(events["TIME"]) >= 0)
        assert header["EXPFLAG"].strip() == "NORMAL"
        assert (header["SP_LOC_A"], header["SP_LOC_B"]) == (462.8, -999.0)
        assert hdus["TIMELINE"].data["SUN_ALT"].max() <= 114
        assert {"TIME", "LONGITUDE", "LATITUDE", "SUN_ALT", "LYMAN_ALPHA", "OI_1304", "OI_1356", "DARKRATE"} <= set(
            hdus["TIMELINE"].columns.names
        )
        assert hdus.verify("exception") is None
    text = path.read_bytes().decode("latin-1")
    assert "EXPFLAG = 'NORMAL       '" in text, "padded as in the archive"


def test_stis_files_have_the_exposures_of_their_association(tmp_path: Path) -> None:
    dataset = association(7, "stis", n=3, length_s=60)
    path = write_tag(tmp_path / f"{dataset.name}_tag.fits", dataset.exposures)
    with ExitStack() as stack:
        tables = opened([path], stack)
        assert [table.exposure_id for table in tables] == [one.rootname for one in dataset.exposures]
        assert {table.association for table in tables} == {dataset.name}
        assert [table.expstart_mjd for table in tables] == [one.start_mjd for one in dataset.exposures]
        assert tables[0].calibration_version is None
    with fits.open(path, memmap=False) as hdus:
        assert hdus[0].header["ROOTNAME"] == dataset.name
        assert (hdus[1].header["TSCAL1"], hdus[1].header["TFORM1"]) == (0.000125, "1J")
        assert 59 < hdus[1].data["TIME"].max() <= 60


def test_a_flare_an_eclipse_and_a_wave_are_where_they_should_be(tmp_path: Path) -> None:
    flare = curve(tmp_path, Exposure(rootname="lsb001avq", length_s=600, flare=(200.0, 8.0, 40.0)))
    times, counts = column(flare, "times_s"), column(flare, "counts")
    assert 198 <= times[np.argmax(np.convolve(counts, np.ones(5), "same"))] <= 215
    assert counts[(times >= 200) & (times < 204)].mean() > 5 * counts[times < 198].mean()
    dip = curve(tmp_path, Exposure(rootname="lsb002avq", setup="cos_nuv", length_s=600, eclipse=(200.0, 300.0, 0.9)))
    times, counts = column(dip, "times_s"), column(dip, "counts")
    inside = (times >= 202) & (times < 298)
    outside = (times < 198) | (times >= 302)
    assert counts[inside].mean() / counts[outside].mean() == pytest.approx(0.1, abs=0.05)
    wave = Exposure(rootname="lsb003avq", length_s=1200, period_s=48.0, amplitude=0.5, rate=50)
    times, counts = (column(curve(tmp_path, wave), name) for name in ("times_s", "counts"))
    power = np.abs(np.fft.rfft(counts - counts.mean()))
    assert 1 / np.fft.rfftfreq(len(times), 2.0)[power.argmax()] == pytest.approx(48, rel=0.03)
    assert counts.mean() / 2 == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("setup", ["cos_fuv", "cos_nuv", "stis"])
@pytest.mark.parametrize("how", BROKEN)
def test_broken_in_every_way(how: str, setup: str, tmp_path: Path) -> None:
    exposure = Exposure(rootname="lsb001avq", setup=setup, broken=how, length_s=100)
    paths = write(tmp_path, exposure)
    with ExitStack() as stack:
        if how in ("cut", "no_table"):
            with pytest.raises(GranuleRejected):
                opened(paths, stack)
            return
        found = reasons(opened(paths, stack), frozenset([BAD_PROPOSAL]))
    assert found == [RULES.get(how, "Short Exposure")]


def test_one_segment_may_be_broken_alone(tmp_path: Path) -> None:
    exposure = Exposure(rootname="lsb001avq", broken="times", broken_in="B", length_s=60)
    first, second = write(tmp_path, exposure)
    with ExitStack() as stack:
        assert reasons(opened([first], stack)) == []
        assert reasons(opened([second], stack)) == [REASONS[2]]


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    exposure = Exposure(rootname="lsb001avq", length_s=60)
    made = []
    for number, one in enumerate((exposure, exposure, replace(exposure, seed=2))):
        (tmp_path / str(number)).mkdir()
        made.append([path.read_bytes() for path in write(tmp_path / str(number), one)])
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_numbers_make_names_of_nine_characters_each_once() -> None:
    datasets = [association(number, setup) for number in range(0, 4000, 7) for setup in ("cos_fuv", "stis")]
    roots = [one.rootname for dataset in datasets for one in dataset.exposures] + [one.name for one in datasets]
    assert {len(name) for name in roots} == {9}
    assert len(set(roots)) == len(roots)
    assert all(
        name.startswith("o" if one.exposures[0].of.instrument == "STIS" else "l")
        for one in datasets
        for name in [one.name]
    )


def test_large_exposures_are_made_a_piece_at_a_time(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exposure = Exposure(rootname="lsb001avq", setup="cos_nuv", length_s=3000, rate=700, background=0)
    (path,) = write(tmp_path, exposure)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with fits.open(path) as hdus:
        assert hdus["EVENTS"].header["NAXIS2"] > 2_000_000
        assert np.all(np.diff(hdus["EVENTS"].data["TIME"][::1000]) >= 0)
    # Of 39 bytes an event, in units of 1024 bytes here.
    assert grown * (1 if sys.platform != "darwin" else 1 / 1024) < 350_000


def test_files_of_each_kind(tmp_path: Path) -> None:
    def suffixes(dataset: Dataset) -> list[str]:
        return sorted({file.suffix for file in files(dataset, dataset.exposures)} - {"ASN", "JIT", "SPT"})

    assert suffixes(association(1, "cos_fuv")) == ["CORRTAG_A", "CORRTAG_B", "X1D", "X1DSUM"]
    assert suffixes(association(1, "cos_fuv", segments="B")) == ["CORRTAG_B", "X1D", "X1DSUM"]
    assert suffixes(association(1, "cos_nuv")) == ["CORRTAG", "X1D", "X1DSUM"]
    assert suffixes(association(1, "cos_image")) == ["CORRTAG"]
    assert suffixes(association(1, "stis")) == ["TAG", "X1D"]
    assert suffixes(association(1, "stis_image")) == ["TAG"]


def test_a_survey_with_a_share_that_is_broken_in_every_way(tmp_path: Path) -> None:
    datasets = survey(200, broken=0.05, length_s=20)
    assert len({dataset.name for dataset in datasets}) == 200
    ways = [dataset.exposures[0].broken for dataset in datasets]
    assert sum(way is not None for way in ways) == 10
    assert set(ways) == {*BROKEN, None}
    assert {one.exposures[0].setup for one in datasets} == set(SETUPS)
    by_target = {one.exposures[0].target: one.exposures[0].setup for one in datasets}
    assert len(by_target) == 20
    assert all(by_target[one.exposures[0].target] == one.exposures[0].setup for one in datasets)
    assert {one.exposures[0].broken for one in survey(50, broken=0)} == {None}
    for _ in range(2):
        paths = write_files(tmp_path / "here", datasets[0])
        assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(path.name for path in paths)
