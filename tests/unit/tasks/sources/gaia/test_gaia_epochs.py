"""Gaia's epoch photometry: the real bulk file, the other layouts made from it, and what is damaged."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from astropy.table import Table
from astropy.time import Time

from deployments.sandbox.tap import votable as sandbox_votable
from lake.science.sky import hpx29
from tasks.services.bounds import in_memory
from tasks.services.http import failing
from tasks.sources.gaia import epochs as gaia_epochs
from tasks.sources.gaia.epochs import ZERO_POINTS, lightcurves, read
from tasks.sources.gaia.layouts import EMPTY, transits

BUDGET = in_memory(failing("gaia", "here", ""))

# Columns of the long layout, as INDIVIDUAL and COMBINED have it.
LONG = (
    "source_id",
    "transit_id",
    "band",
    "time",
    "mag",
    "flux",
    "flux_error",
    "rejected_by_photometry",
    "rejected_by_variability",
    "other_flags",
)


@pytest.fixture(scope="session")
def bulk(data_dir: Path) -> Table:
    """The release's bulk file: three sources, 62 transits. Its flags are the words True and False, in quotes,
    which astropy would read as true, all of them."""
    lines = (data_dir / "gaia" / "gaia_dr3_epoch_bulk.ecsv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    table = Table()
    for name in rows[0]:
        cells = [json.loads(row[name]) for row in rows]
        if isinstance(cells[0], list):
            column = np.empty(len(cells), object)
            column[:] = [np.array([np.nan if v is None else v for v in cell]) for cell in cells]
            table[name] = column
        else:
            table[name] = cells
    return table


def as_long(rows: pa.Table, *, letters: bool = False) -> Table:
    """The same measurements as DataLink's long table has them."""
    quality = rows["quality"].to_numpy()
    flags = {"rejected_by_photometry": quality & 1 > 0, "rejected_by_variability": quality & 2 > 0}
    if letters:
        flags = {name: np.where(flag, "T", "F") for name, flag in flags.items()}
    columns: dict[str, Any] = {name: rows[name].to_numpy() for name in EMPTY.column_names if name != "quality"}
    columns["band"] = columns["band"].astype(str)
    return Table({**columns, **flags, "other_flags": np.zeros(rows.num_rows, np.int64)})


def votable(table: Table) -> bytes:
    # Not by astropy, whose writer overruns its buffer with this table: see tasks.services.tap.to_votable.
    return sandbox_votable(pa.table({name: pa.array(np.asarray(table[name])) for name in table.colnames}))


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def wide(bulk: Table, row: int) -> Table:
    """One row per transit, of one source."""
    columns = {name: bulk[name][row] for name in bulk.colnames if isinstance(bulk[name][row], np.ndarray)}
    flags = {name: values == "True" for name, values in columns.items() if "_flag_" in name}
    return Table({"source_id": np.full(len(columns["transit_id"]), bulk["source_id"][row]), **columns, **flags})


def same(one: pa.Table, other: pa.Table, *, less: tuple[str, ...] = ()) -> bool:
    keys = [("source_id", "ascending"), ("band", "ascending"), ("transit_id", "ascending")]
    names = [name for name in EMPTY.column_names if name not in less]
    return bool(one.sort_by(keys).select(names).equals(other.sort_by(keys).select(names)))


def test_the_bulk_file_is_read_whole(bulk: Table) -> None:
    rows = transits(bulk)
    counts = rows.group_by(["source_id", "band"]).aggregate([([], "count_all"), ("flux", "count")]).to_pylist()
    assert {(row["source_id"], row["band"]): (row["count_all"], row["flux_count"]) for row in counts} == {
        (10655814178816, "G"): (16, 16),
        (10655814178816, "BP"): (16, 12),
        (10655814178816, "RP"): (16, 14),
        (10892037246720, "G"): (23, 23),
        (10892037246720, "BP"): (23, 22),
        (10892037246720, "RP"): (23, 22),
        (14263587225600, "G"): (23, 23),
        (14263587225600, "BP"): (23, 22),
        (14263587225600, "RP"): (23, 22),
    }


def test_the_archives_magnitudes_are_those_of_its_published_zero_points(bulk: Table) -> None:
    for row in transits(bulk).filter(pc.field("mag").is_valid()).to_pylist():
        assert ZERO_POINTS[row["band"]].vega - 2.5 * np.log10(row["flux"]) == pytest.approx(row["mag"], abs=1e-9)


def test_flags_of_the_bulk_file(bulk: Table) -> None:
    for row, source in enumerate(bulk["source_id"]):
        mine = transits(bulk).filter(pc.field("source_id") == int(source))
        for band in ("G", "BP", "RP"):
            quality = mine.filter(pc.field("band") == band)["quality"].to_numpy()
            wanted = bulk[f"variability_flag_{band.lower()}_reject"][row] == "True"
            assert (quality & 2 > 0).tolist() == wanted.tolist()
            rejected = bulk[f"photometry_flag_{band.lower()}_reject"][row] == "True" if band != "G" else wanted & False
            assert (quality & 1 > 0).tolist() == rejected.tolist()
            noisy = (bulk["photometry_flag_noisy_data"][row] == "True") & (band == "G")
            assert (quality & 4 > 0).tolist() == noisy.tolist()
            assert (quality >> 31 & 1 > 0).tolist() == (bulk["photometry_flag_rp_reject"][row] == "True").tolist()
    assert 0 < np.count_nonzero(transits(bulk)["quality"].to_numpy() & 7) < 40


def test_every_layout_gives_the_same(bulk: Table) -> None:
    rows = transits(bulk)
    assert same(rows, pa.concat_tables([transits(wide(bulk, row)) for row in range(3)]))
    for letters in (False, True):
        # The long table has no room for the flags of single CCDs.
        assert same(rows, transits(as_long(rows, letters=letters)), less=("quality",))
        kept = [pc.bit_wise_and(table["quality"], 3) for table in (rows, transits(as_long(rows, letters=letters)))]
        assert kept[0].equals(kept[1])


def test_the_same_from_votables_in_a_zip_one_or_many(bulk: Table) -> None:
    rows = transits(bulk)
    ids = sorted(set(rows["source_id"].to_pylist()))
    long = as_long(rows)
    one = votable(long)
    each = {f"EPOCH_PHOTOMETRY-Gaia DR3 {i}.xml": votable(long[long["source_id"] == i]) for i in ids}
    nameless = long[long["source_id"] == ids[0]]
    nameless.remove_column("source_id")
    for body in (one, zipped(**{"EPOCH_PHOTOMETRY_COMBINED.xml": one}), zipped(**each)):
        assert same(rows, read(body, ids, BUDGET), less=("quality",))
    named = zipped(**{f"EPOCH_PHOTOMETRY-Gaia DR3 {ids[0]}.xml": votable(nameless)})
    assert set(read(named, ids, BUDGET)["source_id"].to_pylist()) == {ids[0]}
    assert set(read(one, ids[:2], BUDGET)["source_id"].to_pylist()) == set(ids[:2]), (
        "what was not asked for is left out"
    )


def test_products_that_are_no_epoch_photometry_are_told(data_dir: Path) -> None:
    body = (data_dir / "gaia" / "gaia_dr3_source_id_5937083312263887616_dl_products_vot.zip").read_bytes()
    with pytest.raises(ValueError, match="has no epoch photometry; its columns: "):
        read(body, [5937083312263887616], BUDGET)


def test_what_is_damaged_is_told(bulk: Table) -> None:
    good = zipped(**{"a.xml": votable(as_long(transits(bulk)))})
    xml = votable(as_long(transits(bulk)))
    says = (
        b'<VOTABLE version="1.4"><RESOURCE type="results"><INFO name="QUERY_STATUS" value="ERROR">too many ids</INFO>'
    )
    for body, told in (
        (good[: len(good) // 2], "damaged zip"),
        (good[:200] + b"XXXX" + good[204:], "damaged zip"),
        (xml[: len(xml) // 2], "no VOTable, or part of one"),
        (b"<html><body>down</body></html>", "no VOTable, or part of one|no epoch"),
        (says + b"</RESOURCE></VOTABLE>", "says ERROR: too many ids"),
        (b"", "no VOTable, or part of one"),
    ):
        with pytest.raises(ValueError, match=told):
            read(body, [1], BUDGET)


def sources_of(rows: pa.Table) -> pa.Table:
    ids = sorted(set(rows["source_id"].to_pylist()))
    ra, dec = np.linspace(10, 20, len(ids)), np.linspace(-5, 5, len(ids))
    return pa.table({"source_id": [str(i) for i in ids], "hpx29": hpx29(ra, dec), "ra": ra, "dec": dec})


def test_light_curves_are_right_and_whole(bulk: Table) -> None:
    rows = transits(bulk)
    made = lightcurves(rows, sources_of(rows)).to_pandas()
    timed = rows.filter(pc.is_valid(rows["time"])).to_pandas()
    assert len(made) == len(timed)
    assert np.allclose(made.mjd - timed.time, 55197.0, rtol=0, atol=1e-9)  # not 55197.5
    first = made.iloc[0]
    assert first.bmjd_tdb == pytest.approx(Time(first.mjd, format="mjd", scale="tcb").tdb.mjd, abs=1e-9)
    # As if they were AB, the collector's fluxes come out too high by a factor 1.110 in G, 1.014 in BP, 1.388 in RP.
    for band, factor in (("G", 1.110), ("BP", 1.014), ("RP", 1.388)):
        rows_of = made[(made.band == band) & made.mag.notna()]
        assert np.allclose(rows_of.flux * factor, 3631e3 * 10 ** (-0.4 * rows_of.mag), rtol=6e-4)
    measured = made[made.mag.notna()]
    assert np.allclose(measured.mag_err, 1.0857362 * measured.flux_err / measured.flux, rtol=1e-6)
    assert (made.detected == timed.flux.notna().to_numpy()).all()
    assert made[~made.detected].flux.isna().all()
    assert (made.good == (made.detected & (made.quality % 8 == 0))).all()
    assert 0 < (~made.good & made.detected).sum() < 20, "rejected ones are there, and marked"
    assert set(made.unit) == {"mJy"}
    assert made.exposure_id.str.isdigit().all()


def test_arrays_of_the_wrong_length_are_refused(bulk: Table) -> None:
    table = bulk.copy()
    table["bp_flux"][1] = table["bp_flux"][1][:-1]
    with pytest.raises(ValueError, match="an array of 22 values for 23 transits"):
        transits(table)


def test_what_is_broken_of_a_source_takes_no_other_with_it(bulk: Table) -> None:
    """In a table of arrays it is a row, in a zip of many files a file; if nobody can say whose, it is an error."""
    rows, ids = transits(bulk), [int(source) for source in bulk["source_id"]]
    table = bulk.copy()
    table["bp_flux"][1] = table["bp_flux"][1][:-1]
    broken: dict[int, str] = {}
    parts = gaia_epochs._sound_parts(table, "RAW.xml", {}, ids, broken)
    assert same(pa.concat_tables(parts), rows.filter(pc.field("source_id") != ids[1]))
    assert broken == {ids[1]: "RAW.xml: an array of 22 values for 23 transits"}

    long = as_long(rows)
    each = {f"EPOCH_PHOTOMETRY-Gaia DR3 {i}.xml": votable(long[long["source_id"] == i]) for i in ids}
    cut = {name: body if str(ids[2]) not in name else body[: len(body) // 2] for name, body in each.items()}
    with pytest.raises(ValueError, match="no VOTable, or part of one"):
        read(zipped(**cut), ids, BUDGET)
    broken = {}
    assert set(read(zipped(**cut), ids, BUDGET, broken)["source_id"].to_pylist()) == set(ids[:2])
    assert list(broken) == [ids[2]]
    with pytest.raises(ValueError, match="no VOTable, or part of one"):
        read(zipped(**{**each, "more.xml": b"<VOTABLE"}), ids, BUDGET, {})


def test_a_source_without_bp_keeps_its_other_bands(bulk: Table) -> None:
    table = bulk.copy()
    for name in ("bp_obs_time", "bp_flux", "bp_flux_error", "bp_mag"):
        table[name][1] = np.array([])
    rows = transits(table)
    assert rows.num_rows == 186
    assert lightcurves(rows, sources_of(rows)).num_rows < lightcurves(transits(bulk), sources_of(rows)).num_rows
