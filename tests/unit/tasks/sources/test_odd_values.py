"""Odd numbers of every archive: the values of shared/cases, and what is the same wherever a row comes from."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import test_panstarrs as panstarrss
import test_ztf as ztfs
from helpers import mast

from lake.commit.sound import sound
from lake.errors import ArchiveError, GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import load_settings
from tasks.pull import complete, made_sound
from tasks.services.bounds import in_memory
from tasks.services.fits import Header
from tasks.services.http import failing
from tasks.sources import heasarc, panstarrs, wise, ztf
from tasks.sources.base import FetchResult, Granule
from tasks.sources.gaia import archive as gaia
from tasks.sources.gaia import epochs as gaia_epochs
from tasks.sources.gaia.layouts import EMPTY
from tasks.sources.hcv import archive as hcv
from tasks.sources.heasarc import FERMIGTRIG, SAXGRBMGRB
from tasks.sources.icecube import archive as icecube
from tasks.sources.registry import REGISTRY
from tasks.sources.rxte.fits import clock
from tasks.sources.rxte.mission import PRODUCTS, Observation
from tasks.sources.rxte.products import read_observation
from tasks.sources.rxte.rows import Reading, readings
from tasks.sources.tess_kepler.mast_fits import read_product, tables_of

BUDGET = in_memory(failing("gaia", "here", ""))
WIDE_SOURCE = 1457486023639239296
RA, DEC = 10.0, 20.0
PLACE = {"ra": [RA], "dec": [DEC]}
VALUES = [2.0, -2.0, None]


def target() -> pa.Table:
    pixel = hpx29([RA], [DEC])
    return TABLES["targets"].cast(pa.table({"target_id": pixel, "hpx29": pixel, **PLACE}))


def taken(name: str, harvest: FetchResult) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
    """Rows of all tables as they go to the lake, and the remark."""
    archive = REGISTRY[name]
    granule = Granule(name, archive.release, archive.parameters, target())
    made = made_sound(harvest, granule, archive.band_units)
    tables = complete(made, granule, datetime.now(UTC))
    return {name: TABLES[name].cast(table).to_pylist() for name, table in tables.items()}, made.remark


def epochs(body: bytes, source: int) -> pa.Table:
    return gaia_epochs.read(body, [source], BUDGET)


def gaia_source(source: int) -> pa.Table:
    return pa.table({"source_id": [str(source)], "hpx29": hpx29([RA], [DEC]), **PLACE})


# --- Gaia ---


def test_wide_tables_of_datalink_have_their_flags(cases_dir: Path) -> None:
    for name, n_rejected in (("wide5.vot", 0), ("wide5_rej.vot", 1)):
        rows = epochs((cases_dir / "archives" / name).read_bytes(), WIDE_SOURCE)
        assert rows.num_rows == 15
        made = gaia_epochs.lightcurves(rows, gaia_source(WIDE_SOURCE)).to_pylist()
        g = [row for row in made if row["band"] == "G"]
        assert [row["quality"] >> 32 for row in g] == [4097, 4097, 5, 4097, 4097]
        rejected = {row["exposure_id"] for row in made if row["quality"] & 1}
        assert len(rejected) == n_rejected
        assert all(row["quality"] & 1 and not row["good"] for row in made if row["exposure_id"] in rejected)
        # Bit 12 of other_flags is the noise of G, and of no other band.
        for row in made:
            noisy = row["band"] == "G" and row["quality"] >> 44 & 1
            assert row["good"] == (not noisy and not row["quality"] & 2 and row["exposure_id"] not in rejected)


def test_a_source_twice_in_a_zip_is_once(cases_dir: Path) -> None:
    body = (cases_dir / "archives" / "wide5.vot").read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}.vot", body)
    assert epochs(packed.getvalue(), WIDE_SOURCE).equals(epochs(body, WIDE_SOURCE))


def test_a_time_out_of_range_is_left_out(cases_dir: Path) -> None:
    body = (cases_dir / "archives" / "gaia_dr2_time_out_of_range.xml").read_bytes()
    rows = epochs(body, 5813181197970338560)
    made = gaia_epochs.lightcurves(rows, gaia_source(5813181197970338560))
    timed = len(rows) - rows["time"].null_count
    assert made.num_rows == timed - 1
    assert (gaia_epochs.out_of_time(rows) or "").endswith(" 1 (5813181197970338560)")


def of_gaia_with(found: pa.Table, monkeypatch: pytest.MonkeyPatch, broken: dict[int, str] | None = None) -> FetchResult:
    """Fetch with an answer of the TAP service, and one transit of every source that is not broken."""

    def datalink(ids: list[int], *_: Any) -> tuple[pa.Table, dict[int, str]]:
        ids = [one for one in ids if one not in (broken or {})]
        n = len(ids)
        light = {
            "source_id": ids,
            "transit_id": ids,
            "band": ["G"] * n,
            "time": [1800.0] * n,
            "flux": [100.0] * n,
            "flux_error": [1.0] * n,
            "mag": [18.0] * n,
            "quality": [0] * n,
        }
        return EMPTY.schema.empty_table() if not n else pa.table(light), broken or {}

    monkeypatch.setattr(gaia.Service, "query", lambda *_, **__: found)
    monkeypatch.setattr(gaia, "_datalink", datalink)
    return gaia.fetch(Granule("gaia", "DR3", gaia.ARCHIVE.parameters, target()), load_settings())


def gaia_rows(**odd: Any) -> pa.Table:
    """Three sources at the target; odd values are of the second."""
    rows = [
        {
            "target_id": target()["target_id"][0].as_py(),
            "source_id": 10 + n,
            "ra": RA,
            "dec": DEC + n * 1e-5,
            "ra_error": 0.1,
            "dec_error": 0.1,
            "pmra": 1.0,
            "pmdec": 1.0,
            "ref_epoch": 2016.0,
            "has_epoch_photometry": True,
            "random_index": n,
        }
        for n in range(3)
    ]
    rows[1] |= odd
    return pa.Table.from_pylist(rows)


@pytest.mark.parametrize(
    ("odd", "kept", "told"),
    [
        ({"ra": np.inf}, 2, "without a place, left out: 1 (11)"),
        ({"dec": 91.0}, 2, "without a place, left out: 1 (11)"),
        ({"ra": None}, 2, "without a place, left out: 1 (11)"),
        ({"source_id": None}, 2, "without an id, left out: 1"),
        ({"target_id": None}, 2, "without a target, left out: 1 (11)"),
        ({"pmra": np.inf}, 3, "infinite values of sources.pm_ra taken for missing: 1 (11)"),
        ({"ra_error": -1.0, "dec_error": -1.0}, 3, "negative values of sources.position_err_arcsec taken for missing"),
        ({"ref_epoch": None}, 3, ""),
    ],
)
def test_one_odd_row_of_the_list_of_sources_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any], kept: int, told: str
) -> None:
    tables, remark = taken("gaia", of_gaia_with(gaia_rows(**odd), monkeypatch))
    assert [len(tables[name]) for name in ("sources", "matches", "lightcurves")] == [kept] * 3
    assert {"10", "12"} <= {row["source_id"] for row in tables["sources"]}
    assert told in str(remark)


def test_rows_of_sources_that_come_twice_are_once(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = pa.concat_tables([gaia_rows(), gaia_rows()])
    tables, remark = taken("gaia", of_gaia_with(twice, monkeypatch))
    assert [row["rank"] for row in tables["matches"]] == [1, 2, 3]
    assert remark is None
    with pytest.raises(GranuleRejected, match="target 7, which was not asked for"):
        of_gaia_with(gaia_rows(target_id=7), monkeypatch)


def test_a_source_whose_light_curve_is_broken_is_rejected_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tables, remark = taken("gaia", of_gaia_with(gaia_rows(), monkeypatch, {11: "an array of 2 values for 3 transits"}))
    assert {row["source_id"] for row in tables["lightcurves"]} == {row["source_id"] for row in tables["sources"]}
    assert {row["source_id"]: row["rank"] for row in tables["matches"]} == {"10": 1, "12": 2}
    assert "sources rejected: 1 (11): an array of 2 values" in str(remark)
    with pytest.raises(ArchiveError, match="an array"):
        of_gaia_with(gaia_rows(), monkeypatch, dict.fromkeys((10, 11, 12), "an array of 2 values for 3 transits"))


def test_transits_before_the_launch_and_in_no_band_are_left_out() -> None:
    times, bands = [1800.0, 0.0, -999.0, 1801.0], ["G", "G", "BP", "XP"]
    rows = pa.table(
        {
            "source_id": [1] * 4,
            "transit_id": np.arange(4),
            "band": bands,
            "time": times,
            "flux": [1.0] * 4,
            "flux_error": [1.0] * 4,
            "mag": [18.0] * 4,
            "quality": [0] * 4,
        }
    )
    assert gaia_epochs.lightcurves(rows, gaia_source(1)).num_rows == 1
    assert (gaia_epochs.out_of_time(rows) or "").endswith("without a time, left out: 2 (1)")
    assert (gaia_epochs.out_of_band(rows) or "").endswith(": 1 (XP)")


# --- FITS ---


def test_one_infinite_error_is_null_and_told(cases_dir: Path) -> None:
    path = cases_dir / "archives" / "ktwo211495446-c05_llc.errinf.fits"
    product = read_product(path, path.name)
    before = tables_of([product], "tess_kepler", "2026")
    made, remarks = sound(before)
    (told,) = remarks
    assert told.startswith("infinite values of lightcurves.")
    assert told.endswith(f": 1 (EPIC 211495446 in {path.name})")
    old, new = (TABLES["lightcurves"].cast(tables["lightcurves"]) for tables in (before, made))
    for name in old.column_names:
        changed = [
            (one, other)
            for one, other in zip(old[name].to_pylist(), new[name].to_pylist(), strict=True)
            if one != other
        ]
        assert changed == ([(np.inf, None)] if changed else [])


def test_one_odd_time_of_a_file_is_no_time() -> None:
    for odd in (np.inf, -999.0, 0.0):
        times = np.array([1400.0, odd, 1400.5, 1401.0])
        product = read_product(
            mast.product("spoc", n=4, columns={"TIME": ("D", "BJD - 2457000, days", times)}), "made.fits"
        )
        assert (product.time.tolist(), product.undated) == ([1400.0, 1400.5, 1401.0], 1)


def test_one_infinite_rate_is_null_and_told(cases_dir: Path) -> None:
    name = "rxte_rate_inf_xp50012010700_n2a.lc"
    observation = Observation("50012-01-07-00", "X", RA, DEC, 51600.0, 500.0, 4, "50012")
    read = read_observation({"xp50012010700_n2a.lc": cases_dir / "archives" / name}, observation, "rxte-1")
    (reading,) = readings([read])
    assert isinstance(reading, Reading)
    rows = TABLES["lightcurves"].cast(reading.tables["lightcurves"]).to_pylist()
    odd = [row for row in rows if not row["detected"]]
    assert [(row["flux"], row["flux_err"], row["good"]) for row in odd] == [(None, None, False)]
    assert "infinite values of lightcurves.flux taken for missing: 1 (50012-01-07-00 in xp50012010700_n2a.lc)" in str(
        reading.remark
    )


@pytest.mark.parametrize("unit", ["d", "h", "ms"])
def test_another_unit_of_time_is_refused(unit: str) -> None:
    header = Header({"TELESCOP": "XTE", "TIMESYS": "TT", "MJDREF": 49353.0, "TIMEPIXR": 0.5, "TIMEDEL": 16.0})
    assert clock(header, 16.0).bin_s == 16.0
    with pytest.raises(GranuleRejected, match=f"TIMEUNIT is {unit.upper()}, not s"):
        clock(replace(header, values={**header.values, "TIMEUNIT": unit}), 16.0)
    with pytest.raises(GranuleRejected, match=r"TIMEPIXR is -999\.0, no place in a bin"):
        clock(replace(header, values={**header.values, "TIMEPIXR": -999}), 16.0)
    with pytest.raises(GranuleRejected, match=r"TIMEUNIT|the unit of TIME"):
        read_product(mast.product("qlp", TIMEUNIT="s"), "made.fits")


# --- events ---


def events(table: heasarc.EventTable, **odd: Any) -> pa.Table:
    """Three events at the target; odd values are of the second."""
    rows = [
        {
            "target_id": target()["target_id"][0].as_py(),
            "name": f"E{n}",
            "ra": RA,
            "dec": DEC,
            "time": 50000.0 + n,
            "error_radius": 1.0,
            "fluence": 1e-6,
        }
        for n in range(3)
    ]
    rows[1] |= odd
    return pa.Table.from_pylist(rows).select(["target_id", *table.columns()])


@pytest.mark.parametrize(
    ("odd", "sources", "rows", "told"),
    [
        ({"time": 0.0}, 3, 2, "without a time, left out: 1 (E1)"),
        ({"time": None}, 3, 2, "without a time, left out: 1 (E1)"),
        ({"name": None}, 2, 2, "without an id, left out: 1"),
        ({"ra": np.inf}, 2, 2, "without a place, left out: 1"),
        ({"error_radius": -1.0}, 3, 3, "position_err_arcsec taken for missing: 1 (E1)"),
        ({"fluence": np.inf}, 3, 3, "lightcurves.flux taken for missing: 1 (E1)"),
    ],
)
def test_one_odd_event_takes_no_other_with_it(odd: dict[str, Any], sources: int, rows: int, told: str) -> None:
    found = events(SAXGRBMGRB, **odd)
    tables, remark = taken("saxgrbmgrb", heasarc.harvest(SAXGRBMGRB, target(), found))
    assert (len(tables["sources"]), len(tables["lightcurves"])) == (sources, rows)
    assert told in str(remark)
    assert tables["coverage"][0]["status"] == "found"


def test_one_odd_neutrino_takes_no_other_with_it() -> None:
    head = "# MJD[days] log10(E/GeV) AngErr[deg] RA[deg] Dec[deg] Azimuth[deg] Zenith[deg]\n"
    sound_lines = [f"{54600.5 + n} 3.5 1.0 {RA} {DEC} 10.0 20.0\n" for n in range(3)]
    odd = [f"0.0 3.5 1.0 {RA}", f"54700.5 3.5 -1.0 {RA}", "54701.5 3.5 1.0 nan", f"inf 3.5 1.0 {RA}"]
    odd_lines = [f"{one} {DEC} 1 2\n" for one in odd]
    body = "".join([head, *sound_lines, *odd_lines]).encode()
    events = icecube.read_events({"IC40": (io.BytesIO(body), None)}, "here")
    assert events.mjd.tolist() == [54600.5, 54601.5, 54602.5]
    tables, remark = taken("icecube", icecube.harvest(target(), events, 2.0))
    assert [row["mjd"] for row in tables["lightcurves"]] == events.mjd.tolist()
    assert "left out: 4 (IC40-0.0, IC40-54700.5, IC40-54701.5, IC40-inf)" in str(remark)
    with pytest.raises(ArchiveError, match="damaged"):
        icecube.read_events({"IC40": (io.BytesIO(body[:-4]), None)}, "here")


def test_no_text_and_no_line_of_icecube_takes_others_with_it() -> None:
    head = "# MJD[days] log10(E/GeV) AngErr[deg] RA[deg] Dec[deg] Azimuth[deg] Zenith[deg]\n"
    lines = [f"{54600.5 + n} 3.5 1.0 {RA} {DEC} 10.0 20.0\n" for n in range(2)]
    odd = ["x 3.5 1.0 10.0 20.0 1 2", "54700.5 3.5 - 10.0 20.0 1 2", "54701.5 none 1.0 10.0 20.0 1 nan"]
    runs = "# MJD_start[days] MJD_stop[days]\n54600.0 54601.0\nx 54602.0\n0.0 54603.0\n54602.0 1e10\n"
    body = "".join([head, *lines, *(f"{one}\n" for one in odd)]).encode()
    events = icecube.read_events({"IC40": (io.BytesIO(body), io.BytesIO(runs.encode()))}, "here")
    tables, remark = taken("icecube", icecube.harvest(target(), events, 2.0))
    assert [(row["mjd"], row["flux"] is not None) for row in tables["lightcurves"]] == [
        (54600.5, True),
        (54601.5, True),
        (54701.5, False),
    ]
    assert "left out: 2 (IC40-x, IC40-54700.5)" in str(remark)
    (season,) = tables["exposures"]
    assert (season["mjd_start"], season["mjd_stop"], season["exposure_s"]) == (54600.0, 54601.0, 86400.0)
    undated = head + "".join(line.replace("546", "0.00") for line in lines)
    assert not icecube.read_events({"IC40": (io.BytesIO(undated.encode()), None)}, "here").mjd.size


def test_an_event_without_a_target_is_left_out_and_one_unasked_is_refused() -> None:
    tables, remark = taken("fermigtrig", heasarc.harvest(FERMIGTRIG, target(), events(FERMIGTRIG, target_id=None)))
    assert len(tables["sources"]) == 2
    assert "without a target, left out: 1 (E1)" in str(remark)
    with pytest.raises(GranuleRejected, match="target 7, which was not asked for"):
        heasarc.harvest(FERMIGTRIG, target(), events(FERMIGTRIG, target_id=7))
    none = events(FERMIGTRIG).set_column(1, "name", pa.nulls(3, pa.string()))
    with pytest.raises(GranuleRejected, match="events of fermigtrig without an id, left out: 3"):
        heasarc.harvest(FERMIGTRIG, target(), none)
    words = events(FERMIGTRIG).set_column(4, "time", pa.array(["1998-01-01"] * 3))
    with pytest.raises(GranuleRejected, match="what should be numbers is string"):
        heasarc.harvest(FERMIGTRIG, target(), words)


def test_events_that_share_an_id_are_rejected_alone() -> None:
    found = pa.concat_tables([events(SAXGRBMGRB), events(SAXGRBMGRB, time=51000.0)])
    tables, remark = taken("saxgrbmgrb", heasarc.harvest(SAXGRBMGRB, target(), found))
    assert {row["source_id"] for row in tables["sources"]} == {"E0", "E2"}
    assert "sources rejected: 1 (E1)" in str(remark)
    assert [row["rank"] for row in tables["matches"]] == [1, 2]


def test_triggers_are_detections_without_a_flux() -> None:
    tables, remark = taken("fermigtrig", heasarc.harvest(FERMIGTRIG, target(), events(FERMIGTRIG)))
    assert [(row["flux"], row["detected"], row["good"]) for row in tables["lightcurves"]] == [(None, True, True)] * 3
    assert remark is None


# --- the same in all archives ---


def of_ztf() -> FetchResult:
    objects = pa.table({"objectid": [1], "filterid": [1], **PLACE})
    light = {
        "row": [0] * 4,
        "hmjd": 58300.0 + np.arange(4),
        "mag": [18.0, -999.0, 99.0, 18.0],
        "magerr": [0.1, -1.0, 0.1, np.inf],
        "catflags": [0] * 4,
    }
    return ztf.harvest(target(), objects, pa.table(light), 1.0)


def of_hcv() -> FetchResult:
    one = {"matchid": 1, "filter": "ACS_F814W", "ra": RA, "dec": DEC, "numlc": 2}
    points = [
        {
            "matchid": 1,
            "filter": "ACS_F814W",
            "mjd": 53767.5 + n,
            "imagename": f"i{n}",
            "mag": mag,
            "corrmag": mag,
            "magerr": 0.1,
            "ci": 1.0,
            "d": 1.0,
        }
        for n, mag in enumerate((24.0, -999.0))
    ]
    sources, matches = hcv.found(target(), [one], 1.0, "http://hcv.invalid")
    return hcv.harvest(sources, matches, [one], points, "http://hcv.invalid")


def of_wise() -> FetchResult:
    n = len(VALUES)
    rows = {
        "ra": [RA] * n,
        "dec": [DEC] * n,
        "band": [1] * n,
        "flux": VALUES,
        "dflux": [1.0, -1.0, np.inf],
        "MJDMEAN": 55200.0 + np.arange(n),
    }
    return wise.harvest(target(), pa.table(rows), 1.0)


def of_panstarrs() -> FetchResult:
    n = len(VALUES)
    rows = {
        "objID": [1] * n,
        "filterID": [1] * n,
        "obsTime": 55200.0 + np.arange(n),
        "psfFlux": VALUES,
        "psfFluxErr": [1.0, -1.0, np.inf],
        "infoFlag": [1] * n,
        "psfQfPerfect": [1.0] * n,
    }
    return panstarrs.harvest(target(), pa.table({"objID": [1], **PLACE}), pa.table(rows), 1.0)


def of_gaia() -> FetchResult:
    n = len(VALUES)
    light = {
        "source_id": [1] * n,
        "transit_id": np.arange(n),
        "band": ["G"] * n,
        "time": 1800.0 + np.arange(n),
        "flux": VALUES,
        "flux_error": [1.0, -1.0, np.inf],
        "mag": [np.nan] * n,
        "quality": [0] * n,
    }
    rows = pa.table(light)
    source = gaia_source(1)
    return FetchResult(source, matched(source), gaia_epochs.lightcurves(rows, source))


def of_mast() -> FetchResult:
    n = len(VALUES)
    columns = {
        "TIME": ("D", "BJD - 2457000, days", 1400.0 + np.arange(n)),
        "SAP_FLUX": ("E", "e-/s", np.array(VALUES, np.float32)),
    }
    product = read_product(mast.product("spoc", n=n, columns=columns, RA_OBJ=RA, DEC_OBJ=DEC), "made.fits")
    tables = tables_of([replace(product, is_good=np.ones(n, bool))], "tess_kepler", REGISTRY["tess_kepler"].release)
    return FetchResult(tables["sources"], matched(tables["sources"]), tables["lightcurves"], tables["exposures"])


def of_heasarc() -> FetchResult:
    found = pa.concat_tables([events(SAXGRBMGRB).slice(0, 1), events(SAXGRBMGRB, fluence=None).slice(1, 1)])
    return heasarc.harvest(SAXGRBMGRB, target(), found)


@pytest.mark.parametrize(
    ("change", "lost", "told"),
    [
        ({"matchid": None}, 1, "measurements without an id, left out: 1"),
        ({"matchid": 1.0}, 0, None),
        ({"mjd": "soon"}, 1, "without a time, left out: 1 (1)"),
        ({"magerr": "-"}, 0, "impossible values of magerr taken for missing: 1 (1)"),
        ({"corrmag": float("inf")}, 0, "impossible values of corrmag taken for missing: 1 (1)"),
        ({"magerr": -1.0}, 0, "impossible values of magerr taken for missing: 1 (1)"),
    ],
)
def test_one_odd_measurement_of_hubble_takes_no_other_with_it(change: dict[str, Any], lost: int, told: str) -> None:
    one = {"matchid": 1, "filter": "ACS_F814W", "ra": RA, "dec": DEC, "numlc": 2, "autoclass": float("inf")}
    point = {"matchid": 1, "filter": "ACS_F814W", "mag": 24.0, "corrmag": 24.0, "magerr": 0.1, "ci": 1.0}
    points = [{**point, "mjd": 53767.5 + n, "imagename": f"i{n}"} for n in range(3)]
    points[1] |= change
    sources, matches = hcv.found(target(), [one], 1.0, "http://hcv.invalid")
    tables, remark = taken("hcv", hcv.harvest(sources, matches, [one], points, "http://hcv.invalid"))
    assert len(tables["lightcurves"]) == 2 * (3 - lost)
    assert (remark is None) if told is None else (told in str(remark))


@pytest.mark.parametrize("ids", [pa.array([None, 150000000000000001]), pa.array([np.nan, 150000000000000001.0])])
def test_an_object_without_an_id_leaves_the_ids_of_others_whole(tmp_path: Path, ids: pa.Array) -> None:
    """Ids of Pan-STARRS have 18 digits, of which a float keeps 16; pandas makes floats of what has gaps."""
    number = ids.cast(pa.int64(), safe=False)[1].as_py()
    found = panstarrss.objects([0, number], [RA, RA], [DEC, DEC + 1e-4])
    found = found.set_column(found.column_names.index("objID"), "objID", ids)
    rows = panstarrss.detections([number], [RA], [DEC + 1e-4])
    folder = panstarrss.catalogues(tmp_path, found, rows)
    asked = Granule("panstarrs", panstarrs.RELEASE, panstarrs.ARCHIVE.parameters, target())
    tables, remark = taken("panstarrs", panstarrs.fetch(asked, load_settings(endpoints={"panstarrs": str(folder)})))
    assert {row["source_id"] for row in tables["lightcurves"]} == {str(number)}
    assert "sources without an id, left out: 1" in str(remark)


def test_an_object_that_comes_twice_is_once(tmp_path: Path) -> None:
    rows = ztfs.objects([RA], [DEC], [1])
    folder = ztfs.collection(tmp_path, pa.concat_tables([rows, rows]))
    asked = Granule("ztf", ztf.RELEASE, ztf.ARCHIVE.parameters, target())
    tables, remark = taken("ztf", ztf.fetch(asked, load_settings(endpoints={"ztf": str(folder)})))
    assert [len(tables[name]) for name in ("sources", "matches", "lightcurves")] == [1, 1, 3]
    assert remark is None


def test_flags_that_are_none_are_not_good() -> None:
    light = {
        "row": [0] * 3,
        "hmjd": 58300.0 + np.arange(3),
        "mag": [18.0] * 3,
        "magerr": [0.1] * 3,
        "catflags": pa.array([0.0, -32768.0, None]),
    }
    made = ztf.harvest(target(), pa.table({"objectid": [1], "filterid": [1], **PLACE}), pa.table(light), 1.0)
    assert made.lightcurves["good"].to_pylist() == [True, False, False]
    whole = {
        "objID": [1] * 5,
        "filterID": [1] * 5,
        "obsTime": 55200.0 + np.arange(5),
        "psfFlux": [1e-6] * 5,
        "psfFluxErr": [1e-7] * 5,
        "infoFlag": pa.array([1.0, None, 2.0**40, 1.0, 1.0]),
        "psfQfPerfect": [1.0, 1.0, 1.0, np.inf, None],
    }
    made = panstarrs.harvest(target(), pa.table({"objID": [1], **PLACE}), pa.table(whole), 1.0)
    assert made.lightcurves["good"].to_pylist() == [True, False, False, False, False]


def matched(sources: pa.Table) -> pa.Table:
    return pa.table(
        {
            "target_id": target()["target_id"],
            "source_id": sources["source_id"],
            "hpx29": sources["hpx29"],
            "separation_arcsec": [0.0],
            "rank": [1],
        }
    )


MAKERS = {
    "ztf": of_ztf,
    "hcv": of_hcv,
    "wise": of_wise,
    "panstarrs": of_panstarrs,
    "gaia": of_gaia,
    "tess_kepler": of_mast,
    "saxgrbmgrb": of_heasarc,
}

# Triggers have no flux at all, and energies of neutrinos are never negative or missing.
WITHOUT = {"fermigtrig", "icecube", "icecubepsc"}


def test_every_archive_is_looked_at() -> None:
    assert set(MAKERS) | WITHOUT == set(REGISTRY)
    assert "pca_a" in PRODUCTS


@pytest.mark.parametrize("name", ["ztf", "wise", "panstarrs", "gaia"])
def test_what_cannot_be_is_told_by_every_archive(name: str) -> None:
    """Silence would take an odd error for one that was never given."""
    _, remark = taken(name, MAKERS[name]())
    column = "mag_err" if name == "ztf" else "flux_err"
    for kind in ("negative", "infinite"):
        assert f"{kind} values of lightcurves.{column} taken for missing: 1 (" in str(remark)


@pytest.mark.parametrize("name", MAKERS)
def test_good_and_detected_are_the_same_everywhere(name: str) -> None:
    """What has a flux is detected, and good whatever its sign; what has none is neither."""
    tables, _ = taken(name, MAKERS[name]())
    rows = tables["lightcurves"]
    assert {row["detected"] for row in rows if row["band"] != "tess_spoc_pdcsap"} == {True, False}
    for row in rows:
        assert row["detected"] == (row["flux"] is not None)
        assert row["detected"] or not row["good"]
        if row["flux"] is not None and row["flux"] < 0:
            assert row["good"]
        assert row["flux_err"] is None or row["flux_err"] >= 0
    if name in ("wise", "panstarrs", "gaia", "tess_kepler"):
        assert any(row["flux"] is not None and row["flux"] < 0 for row in rows)
