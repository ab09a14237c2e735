"""The stand-in for RXTE's archive: files as the real ones are, what differs, what is broken, the service, the loop."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import pyvo
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time

from benchmarks.rxte_loop import collect, run
from deployments.sandbox import rxte
from deployments.sandbox.server import Sandbox

# Tests of the archives see what is wrong with it, too.
pytestmark = pytest.mark.long

KEYWORDS = {
    "EXTNAME": "RATE",
    "TIMESYS": "TT",
    "TIMEUNIT": "s",
    "MJDREFI": 49353,
    "MJDREFF": 0.000696574074,
    "TIMEREF": "LOCAL",
    "TASSIGN": "SATELLITE",
    "CLOCKAPP": True,
    "TIERRELA": 1e-9,
    "TIERABSO": 1e-4,
    "TELESCOP": "XTE",
    "HDUCLASS": "OGIP",
    "HDUCLAS1": "LIGHTCURVE",
    "HDUCLAS3": "RATE",
}
OBSID = re.compile(r"^\d{5}-\d{2}-\d{2}-\d{2}[0-9A-Z]?$")
SMALL: dict[str, Any] = {"n_obsids": 60, "seed": 2, "std2": 0.0, "bins": (20, 60)}
SLEW, NO_EXPOSURE = set("AZ"), set("AZRSGCD")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    root = tmp_path_factory.mktemp("mirror")
    return root, rxte.write_mirror(root, n_obsids=220, seed=11, std2=0.01, bins=(100, 160))


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    root = tmp_path_factory.mktemp("spoilt")
    return root, rxte.write_mirror(root, broken=0.4, **SMALL)


@pytest.fixture(scope="module")
def rows(mirror: tuple[Path, pa.Table]) -> list[dict[str, Any]]:
    """ObsIDs, without what was accepted only."""
    return [row for row in mirror[1].to_pylist() if row["obsid"]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox() as box:
        rxte.mount(box, tmp_path_factory.mktemp("archive"), seed=4, scale=0.03, targets=[(83.6, 22.0)])
        yield box


def product(row: dict[str, Any], kind: str) -> str:
    return f"{kind[:2]}{row['obsid'].replace('-', '')}{kind[2:]}.lc.gz"


def with_quirk(rows: list[dict[str, Any]], quirk: str, kind: str = "xp_n2a") -> dict[str, Any]:
    return next(row for row in rows if row["quirk"] == quirk and product(row, kind) in row["products"])


def read(root: Path, row: dict[str, Any], kind: str = "xp_n2a") -> tuple[fits.Header, Any]:
    with fits.open(root / row["folder"] / "stdprod" / product(row, kind)) as file:
        file.verify("exception")
        return file["RATE"].header.copy(), np.array(file["RATE"].data)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_net_light_curve_is_as_real_ones_are(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    root, _ = mirror
    row = with_quirk(rows, "")
    with fits.open(root / row["folder"] / "stdprod" / product(row, "xp_n2a")) as file:
        file.verify("exception")
        assert [one.name for one in file] == ["PRIMARY", "RATE", "STDGTI"]
        assert file[0].data is None
        head, data, gti = file[1].header, file[1].data, file[2].data
        assert {name: head[name] for name in KEYWORDS} == KEYWORDS
        assert data.columns.names == ["TIME", "RATE", "ERROR", "FRACEXP", "BARYTIME"]
        assert data.columns.formats == ["D", "E", "E", "E", "D"]
        assert data.columns.units == ["s", "count/s", "count/s", "", "s"]
        assert [data.dtype[n].str for n in range(5)] == [">f8", ">f4", ">f4", ">f4", ">f8"]
        assert (head["TIMEDEL"], head["TIMEPIXR"], head["HDUCLAS2"], head["INSTRUME"]) == (16, 0, "NET", "PCA")
        assert (head["TIMEZERI"], head["TIMEZERF"], head["BACKAPP"]) == (0, 0, True)
        assert (head["OBS_ID"], head["OBJECT"]) == (row["obsid"], row["target_name"])
        assert (head["RA_PNT"], head["DEC_PNT"]) == (row["ra"], row["dec"])
        assert head["ROWID1"].startswith("X1L")
        time = data["TIME"]
        assert len(time) == row["n_bins"]
        assert set(np.diff(time) % 16) == {0}
        assert time[0] == pytest.approx(head["TSTART"], abs=1e-6)
        assert head["TSTARTI"] + head["TSTARTF"] == pytest.approx(head["TSTART"], abs=1e-6)
        assert head["TSTOPI"] + head["TSTOPF"] == pytest.approx(time[-1] + 16, abs=1e-6)
        assert (gti["STOP"] - gti["START"]).sum() == pytest.approx(16 * len(time))
        inside = (time[:, None] >= gti["START"]) & (time[:, None] < gti["STOP"])
        assert (inside.sum(axis=1) == 1).all()


def test_times_are_those_of_the_table_and_of_the_barycentre(
    mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]
) -> None:
    for row in [one for one in rows if product(one, "xp_n2a") in one["products"] and one["quirk"] == ""][::25]:
        head, data = read(mirror[0], row)
        mjd = head["MJDREFI"] + head["MJDREFF"] + data["TIME"] / 86_400
        begin = Time(mjd[0], format="mjd", scale="tt")
        assert begin.utc.mjd == pytest.approx(row["time"], abs=6e-6)
        # Dates of real files are in TT, the older ones with two digits for the year.
        clock = begin.datetime
        assert head["DATE-OBS"] == f"{clock:%d/%m/%y}" if row["time"] < 51_178 else f"{clock:%Y-%m-%dT%H:%M:%S}"
        here = Time(mjd[[0, -1]], format="mjd", scale="tt", location=EarthLocation.from_geocentric(0, 0, 0, unit="m"))
        target = SkyCoord(row["ra"], row["dec"], unit="deg")
        delay = here.light_travel_time(target, ephemeris="builtin").to_value("s")
        assert data["BARYTIME"][[0, -1]] - data["TIME"][[0, -1]] == pytest.approx(delay, abs=0.01)


def test_rates_are_the_targets_and_net_is_total_less_background(
    mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]
) -> None:
    together = ("xp_n2a", "xp_s2a", "xp_b2a")
    row = next(r for r in rows if {product(r, kind) for kind in together} <= set(r["products"]) and r["quirk"] == "")
    (net, n), (total, s), (background, b) = (read(mirror[0], row, kind) for kind in together)
    assert [head["HDUCLAS2"] for head in (net, total, background)] == ["NET", "TOTAL", "BKG"]
    assert n["RATE"] == pytest.approx(s["RATE"] - b["RATE"], abs=1e-5)
    eta = [r for r in rows if r["target_name"] == "ETA_CAR" and product(r, "xp_n2a") in r["products"] and not r["flag"]]
    for one in eta[::6]:
        head, data = read(mirror[0], one)
        zero = head.get("TIMEZERO", 0.0)
        expected = rxte.level(head["MJDREFI"] + head["MJDREFF"] + (data["TIME"] + zero) / 86_400)
        pull = (data["RATE"] - expected) / data["ERROR"]
        assert len(pull) >= 100
        assert abs(np.nanmean(pull)) < 5 / np.sqrt(len(pull))
        assert 0.8 < np.nanstd(pull) < 1.2
    assert np.ptp(rxte.level(np.linspace(50_100, 55_900, 2_000))) > 15


def test_hexte_has_bins_of_128_s(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    row = with_quirk(rows, "", "xh_n1a")
    head, data = read(mirror[0], row, "xh_n1a")
    assert (head["INSTRUME"], head["TIMEDEL"], head["HDUCLAS2"]) == ("HEXTE", 128, "NET")
    assert len(data) == -(-row["n_bins"] // 8)
    late = [name for r in rows if r["time"] > 55_179 for name in r["products"] if re.search(r"^xh.*_n", name)]
    assert late == [], "without rocking there is no background"


def test_keywords_that_are_absent(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    for quirk, absent in [
        ("no_timepixr", ["TIMEPIXR"]),
        ("no_timezero", ["TIMEZERO", "TIMEZERI", "TIMEZERF"]),
        ("timezero", ["TIMEZERI"]),
        ("no_id", ["OBS_ID"]),
    ]:
        head, data = read(mirror[0], with_quirk(rows, quirk))
        assert not [name for name in absent if name in head]
        assert head.get("TIMEZERO") == (rxte.TIMEZERO if quirk == "timezero" else None)
        raw = data["TIME"][0] - (0 if quirk == "timezero" else rxte.TIMEZERO)
        assert raw / 16 == pytest.approx(round(raw / 16), abs=1e-8)


def test_columns_and_tables_that_differ(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    root = mirror[0]
    data = read(root, with_quirk(rows, "nan"))[1]
    assert np.isnan(data["RATE"]).any()
    assert (np.isnan(data["RATE"]) == np.isnan(data["ERROR"])).all()
    assert not np.isnan(data["RATE"]).all()
    head, data = read(root, with_quirk(rows, "counts"))
    assert (head["TUNIT2"], head["TUNIT3"], data.dtype["RATE"].str) == ("counts/s", "counts/s", ">f8")
    assert {"BACKV", "BACKE"} < set(read(root, with_quirk(rows, "backv"))[1].dtype.names)
    assert "BARYTIME" not in read(root, with_quirk(rows, "no_barytime"))[1].dtype.names
    for quirk, names in (("late", ["PRIMARY", "STDGTI", "RATE"]), ("no_gti", ["PRIMARY", "RATE"])):
        row = with_quirk(rows, quirk)
        with fits.open(root / row["folder"] / "stdprod" / product(row, "xp_n2a")) as file:
            assert [one.name for one in file] == names


def test_filter_files_and_standard2(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    root = mirror[0]
    paths = sorted(root.rglob("x*.xfl.gz"))
    assert len(paths) > 150
    with fits.open(paths[0]) as file:
        data, head = file[1].data, file[1].header
        wanted = {"Time", "ELV", "OFFSET", "NUM_PCU_ON", "TIME_SINCE_SAA"}
        wanted |= {f"PCU{n}_ON" for n in range(5)} | {f"ELECTRON{n}" for n in range(5)}
        assert wanted == set(data.columns.names)
        assert sum(data[f"PCU{n}_ON"][0] for n in range(5)) == data["NUM_PCU_ON"][0] > 0
        assert head["TIMEZERO"] == rxte.TIMEZERO
        assert set(np.diff(data["Time"])) == {16}
    row = next(row for row in rows if row["std2"])
    assert re.search(r"/pca/FS4a_[0-9a-f]+-[0-9a-f]+\.gz$", row["std2"])
    with fits.open(root / row["std2"]) as file:
        assert [one.name for one in file] == ["PRIMARY", "XTE_SA", "GTI"]
        data, head = file[1].data, file[1].header
        assert (head["DATAMODE"], head["TIMEDEL"], head["TIMEZERO"]) == ("Standard2f", 16, rxte.TIMEZERO)
        spectra = [name for name in data.columns.names if re.fullmatch(r"X[123][LR]SpecPcu[0-4]", name)]
        assert len(spectra) == 30
        assert {data[name].shape for name in spectra} == {(24, 129)}
        assert data["X1LSpecPcu2"].sum() > 0
        assert int(Path(row["std2"]).name[5:].split("-")[0], 16) == pytest.approx(data["Time"][0], abs=4)


def test_obsids_epochs_and_pieces(mirror: tuple[Path, pa.Table], rows: list[dict[str, Any]]) -> None:
    root, table = mirror
    assert table.schema == rxte.SCHEMA
    assert len(rows) == len({row["obsid"] for row in rows}) == 220
    for row in rows:
        assert OBSID.match(row["obsid"])
        prnb, first = row["obsid"][:5], int(row["obsid"][0])
        assert row["cycle"] == (first if first < 9 else 9 + int(row["obsid"][1]))
        assert row["folder"] == f"AO{row['cycle']}/P{prnb}/{row['obsid']}"
        assert (row["prnb"], row["flag"]) == (int(prnb), row["obsid"][14:])
        assert (row["exposure"] is None) == (row["flag"] in NO_EXPOSURE)
        assert row["is_slew"] == (row["flag"] in SLEW)
        found = {path.name for path in (root / row["folder"] / "stdprod").glob("*.lc.gz")}
        assert found == set(row["products"])
        assert (root / row["folder"]).is_dir()
    assert {row["epoch"] for row in rows} == {1, 2, 3, 4, 5}
    assert sum(row["mixed"] for row in rows) == 4
    assert {row["flag"] for row in rows} >= {"", "A", "Z", "S", "R", "0", "C"}
    assert {row["quirk"] for row in rows} == {"", *rxte.QUIRKS}
    times = np.sort([row["time"] for row in rows if row["target_name"] == "ETA_CAR" and not row["flag"]])
    assert np.ptp(times) > 15.5 * 365
    assert np.diff(times).min() > 0.1
    counts = [len(row["products"]) for row in rows]
    assert 5 < np.mean(counts) < 15
    assert 0 in counts
    assert {len(list((root / row["folder"]).iterdir())) for row in rows} >= {1, 2}, "some have no stdprod at all"


def test_what_is_broken_cannot_be_read(spoilt: tuple[Path, pa.Table]) -> None:
    for how in rxte.BROKEN:
        root, table = spoilt
        broken = [(row["folder"], one) for row in table.to_pylist() for one in row["broken"] or [] if one["how"] == how]
        assert broken
        for folder, one in broken:
            path = root / folder / "stdprod" / one["file"]
            with pytest.raises((OSError, KeyError, TypeError)), fits.open(path) as file:
                file["RATE"].data["RATE"].sum()
            if how not in ("truncated", "empty", "garbage"):
                gzip.decompress(path.read_bytes())


def test_all_but_what_is_broken_is_as_it_would_be(spoilt: tuple[Path, pa.Table], tmp_path: Path) -> None:
    sound = rxte.write_mirror(tmp_path, **SMALL)
    assert not any(row["broken"] for row in sound.to_pylist())
    rows = spoilt[1].to_pylist()
    named = {f"{row['folder']}/stdprod/{one['file']}" for row in rows for one in row["broken"] or []}
    good, bad = digest(tmp_path), digest(spoilt[0])
    assert good.keys() == bad.keys()
    assert {name for name in good if good[name] != bad[name]} == named


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    tables = [
        rxte.write_mirror(tmp_path / name, n_obsids=20, seed=seed, broken=0.2)
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    ]
    assert tables[0].equals(tables[1])
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert not tables[0].equals(tables[2])
    with pytest.raises(ValueError, match="not enough"):
        rxte.write_mirror(tmp_path, n_obsids=5, seed=1)


def test_xtemaster_has_the_services_columns(mirror: tuple[Path, pa.Table], data_dir: Path) -> None:
    table = rxte.xtemaster(mirror[1])
    heads = [
        (data_dir / "heasarc" / name).read_text().splitlines()[0].split(",")
        for name in ("xtemaster_eta_car_5.csv", "xtemaster_eta_car_60rows.csv")
    ]
    assert set(table.column_names) == {*heads[0], *heads[1]}
    assert table.schema.field("exposure").metadata == {b"unit": b"s"}
    accepted = table.filter(pa.compute.is_null(table["obsid"]))
    assert accepted.num_rows == 7
    assert set(accepted["status"].to_pylist()) == {"accepted"}
    assert accepted["time"].null_count == accepted["exposure"].null_count == 7


def test_a_cone_by_tap(box: Sandbox) -> None:
    service = pyvo.dal.TAPService(box.endpoints["heasarc"])
    ra, dec = rxte.TARGETS[0][1:]
    found = service.run_sync(
        'SELECT target_name, cycle, prnb, obsid, "time", exposure, ra, dec FROM xtemaster WHERE 1=CONTAINS('
        f"POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra}, {dec}, 0.1)) AND exposure > 0 ORDER BY \"time\""
    ).to_table()
    assert set(found["target_name"]) == {"ETA_CAR"}
    assert np.all(np.diff(found["time"]) >= 0)
    assert len(found) > 20
    near = service.run_sync("SELECT obsid FROM xtemaster WHERE DISTANCE(POINT(ra, dec), POINT(83.6, 22.0)) < 0.1")
    assert len(near.to_table()) > 0


def test_files_and_listings_by_http(box: Sandbox) -> None:
    service = box.services["rxte"]
    row = next(one for one in service.table.to_pylist() if one["obsid"] and not one["obsid"][14:])
    folder = service._folders[row["__row"]]
    for prefix in ("xte", "rxte"):
        base = f"{service.ftp_url}/{prefix}/data/archive/{folder}/stdprod"
        assert httpx.get(base).status_code == 301
        page = httpx.get(base + "/")
        names = [name for name in re.findall(r'href="([^"?]+)"', page.text) if not name.endswith("/")]
        assert names == sorted(path.name for path in (service.files / folder / "stdprod").iterdir())
        assert httpx.get(f"{base}//{names[0]}").content == (service.files / folder / "stdprod" / names[0]).read_bytes()
    service.prefixes.discard("rxte")
    try:
        assert httpx.get(base + "/").status_code == 404
        assert httpx.get(base.replace("/rxte/data", "/xte/data") + "/").status_code == 200
    finally:
        service.prefixes.add("rxte")
    for outside in ("xte/data/archive/%2e%2e/observations.parquet", "xte/data/archives/", "xte/", "xte/data/archive/x"):
        assert httpx.get(f"{service.ftp_url}/{outside}").status_code == 404


def test_datalink_gives_folders_of_an_observation_and_its_pieces(box: Sandbox) -> None:
    service = box.services["rxte"]
    slew = next(one["obsid"] for one in service.table.to_pylist() if (one["obsid"] or "").endswith("A"))
    row = next(one for one in service.table.to_pylist() if one["obsid"] == slew[:14])
    ids = [f"ivo://nasa.heasarc/xtemaster?{row['__row']}", "ivo://nasa.heasarc/xtemaster?1"]
    found = pyvo.dal.DALQuery(box.url(rxte.DATALINK_PATH), ID=ids).execute().to_table()
    assert set(found["ID"]) == {ids[0]}
    assert list(found.columns) == ["ID", "access_url", "sciserver", "aws", "content_length", "error_message"]
    prefix = f"s3://nasa-heasarc/xte/data/archive/AO{row['cycle']}/P{row['prnb']}/"
    assert {prefix + row["obsid"] + "/", prefix + slew + "/"} <= set(found["aws"])
    assert len(set(found["aws"])) < len(found), "the observation itself is there twice"
    assert {httpx.get(url).status_code for url in found["access_url"]} == {200}


def test_mount_finds_what_it_made_before(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with Sandbox() as box:
            rxte.mount(box, tmp_path, seed=4, scale=0.0)
            seen.append((tmp_path / "rxte" / "observations.parquet").stat().st_mtime_ns)
            assert len(box.services["rxte"].table) > 48
    assert seen[0] == seen[1]


def test_the_notebooks_loop(spoilt: tuple[Path, pa.Table], capsys: pytest.CaptureFixture[str]) -> None:
    root, table = spoilt
    known = [row for row in table.to_pylist() if row["obsid"]]
    bad = {one["file"] for row in known for one in row["broken"]}
    wanted = {name: row for row in known for name in row["products"] if re.search(r"^xp.*_n2[ab]", name)}
    found, files, skipped = collect(root, table, ("a", "b"))
    assert {path.name for path in skipped} == bad & set(wanted)
    assert skipped
    assert files == len(wanted) - len(skipped)
    assert len(found) == sum(row["n_bins"] for name, row in wanted.items() if name not in bad)
    assert found["mjd"].is_monotonic_increasing
    assert all(kind.isnative for kind in found.dtypes if isinstance(kind, np.dtype))
    done = run(root, table, ("a", "b"))
    assert (done["rows"], done["files"], done["skipped"]) == (len(found), files, len(skipped))
    assert done["seconds"] > 0
    assert capsys.readouterr().out.count("skipped") == 2 * len(skipped)
    # Half a bin after its start, whatever the file says or does not say about it.
    for obsid, curve in found[found["band"] == "a"].groupby("obsid"):
        row = next(row for row in known if row["obsid"] == obsid)
        utc = Time(curve["mjd"].iloc[0], format="mjd", scale="tt").utc.mjd
        assert utc == pytest.approx(row["time"] + 8 / 86_400, abs=6e-6)
