"""The Gaia stand-in: sources at targets, light curves that depend on their source only, DataLink in four layouts."""

from __future__ import annotations

import html
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pyvo
import requests
from astropy.coordinates import SkyCoord
from astropy.io import votable
from astropy.table import Table

from deployments.sandbox import gaia
from deployments.sandbox.server import Sandbox

PLACES = [(0.00001, 10.0), (359.99999, -35.0), (123.0, 89.9999), (301.0, -89.99995), (77.3582, 5.6931)] + [
    (7.0 * n, 40 * np.sin(n)) for n in range(45)
]
ASKED = {
    "RETRIEVAL_TYPE": "EPOCH_PHOTOMETRY",
    "RELEASE": "Gaia DR3",
    "VALID_DATA": "false",
    "FORMAT": "votable",
    "USE_ZIP_ALWAYS": "true",
}
BANDS = {
    "G": ("g_transit", "g_transit_time", "noisy_data"),
    "BP": ("bp", "bp_obs_time", "bp_reject"),
    "RP": ("rp", "rp_obs_time", "rp_reject"),
}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    root = tmp_path_factory.mktemp("archives")
    with Sandbox.start(root, archives=["gaia"], seed=7, scale=0.004, targets=PLACES) as box:
        yield box


@pytest.fixture
def link(box: Sandbox) -> Iterator[gaia.DataLink]:
    link = box.services["gaia_datalink"]
    yield link
    link.structures, link.forget, link.most = set(gaia.STRUCTURES), set(), gaia.MOST_IDS


@pytest.fixture(scope="module")
def ids() -> list[int]:
    """Five sources that have light curves."""
    sources = gaia.gaia_source(PLACES, seed=7, n_field=2000, share_with_epochs=gaia.SHARE_WITH_EPOCHS)
    return sorted(sources.filter(sources["has_epoch_photometry"])["source_id"].to_pylist()[:5])


def ask(link: gaia.DataLink, ids: list[Any], structure: str, **more: str) -> dict[str, bytes]:
    data = {**ASKED, "ID": ",".join(map(str, ids)), "DATA_STRUCTURE": structure, **more}
    answer = httpx.post(link.url, data=data)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/zip"), answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def table_of(content: bytes) -> Table:
    return Table.read(io.BytesIO(content), format="votable")


def plain(value: Any) -> Any:
    return None if value is np.ma.masked or value != value else value.item() if hasattr(value, "item") else value


def rows_of_wide(wide: Any) -> set[tuple[Any, ...]]:
    """Rows of the long form, from rows of transits."""
    rows = set()
    for band, (name, when, rejected) in BANDS.items():
        columns = (
            "source_id",
            "transit_id",
            when,
            f"{name}_mag",
            f"{name}_flux",
            f"{name}_flux_error",
            f"{name}_flux_over_error",
            f"photometry_flag_{rejected}",
            f"variability_flag_{band.lower()}_reject",
        )
        for row in zip(*(wide[column] for column in columns), strict=True):
            values = tuple(map(plain, row))
            if values[2] is not None:
                rows.add((*values[:2], band, *values[2:]))
    return rows


def rows_of_long(long: Table) -> set[tuple[Any, ...]]:
    names = (
        "source_id",
        "transit_id",
        "band",
        "time",
        "mag",
        "flux",
        "flux_error",
        "flux_over_error",
        "rejected_by_photometry",
        "rejected_by_variability",
    )
    return {tuple(map(plain, row)) for row in zip(*(long[name] for name in names), strict=True)}


# --- sources ---


def test_every_target_has_a_source_and_some_a_second() -> None:
    sources = gaia.gaia_source(PLACES, seed=7, n_field=2000, share_with_epochs=0.45)
    places = SkyCoord(PLACES, unit="deg")
    apart = (
        places[:, None]
        .separation(SkyCoord(sources["ra"].to_numpy(), sources["dec"].to_numpy(), unit="deg")[None])
        .arcsec
    )
    nearest = np.sort(apart, axis=1)
    assert (nearest[:, 0] <= 0.5).all()
    second = (nearest[:, 1] < 0.9 + 1e-6).mean()
    assert 0.15 < second < 0.6
    first, other = np.argsort(apart, axis=1)[nearest[:, 1] < 0.9][:, :2].T
    mag = sources["phot_g_mean_mag"].to_numpy()
    assert (np.abs(mag[first] - mag[other]) > 0.05).all()
    assert len(set(sources["source_id"].to_pylist())) == len(sources)
    assert len(set(sources["random_index"].to_pylist())) == len(sources)
    assert sources["has_epoch_photometry"].to_numpy().mean() == pytest.approx(0.45, abs=0.05)
    assert set(sources["ref_epoch"].to_pylist()) == {2016.0}
    assert 0.1 < sources["pmra"].null_count / len(sources) < 0.2
    assert sources["pmra"].is_null().equals(sources["pmdec"].is_null())
    assert sources.equals(gaia.gaia_source(PLACES, seed=7, n_field=2000, share_with_epochs=0.45))
    assert not sources.equals(gaia.gaia_source(PLACES, seed=8, n_field=2000, share_with_epochs=0.45))


def test_tap_serves_the_sources(box: Sandbox) -> None:
    with requests.Session() as session:
        tap = pyvo.dal.TAPService(box.endpoints["gaia"], session=session)
        query = "SELECT * FROM gaiadr3.gaia_source WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 77.3582, 5.6931, 0.00028)) AND has_epoch_photometry = 'True'"  # noqa: E501
        everything = tap.run_sync("SELECT * FROM gaiadr3.gaia_source").to_table()
        assert len(everything) > 2050
        assert everything["pmra"].unit == "mas / yr"
        assert everything["source_id"].dtype == np.int64
        assert everything["has_epoch_photometry"].dtype == bool
        assert len(tap.run_sync(query)) <= 2
    assert box.endpoints["gaia_datalink"] == box.url("/gaia/data")


# --- light curves ---


def test_light_curves_are_as_in_the_release() -> None:
    made = gaia.epoch_photometry(np.arange(1, 2001) * 2**40, seed=1)
    n = len(made)
    assert len(set(zip(made["source_id"].to_pylist(), made["transit_id"].to_pylist(), strict=True))) == n
    for name, (zero, least) in {
        "g_transit": (25.6873668671, 1e-9),
        "bp": (25.3385422158, 0.05),
        "rp": (24.7478955012, 0.03),
    }.items():
        flux, mag = made[f"{name}_flux"].to_numpy(), made[f"{name}_mag"].to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.where(flux > 0, zero - 2.5 * np.log10(flux), np.nan)
        np.testing.assert_allclose(mag, expected, rtol=0, atol=1e-12)
        when = made["g_transit_time" if name == "g_transit" else f"{name}_obs_time"].to_numpy()
        assert np.nanmin(when) >= 1666
        assert np.nanmax(when) <= 2704
        lacking = np.isnan(when).mean()
        assert (lacking == 0) if name == "g_transit" else (least < lacking < 0.15)
        assert 0.01 < np.isnan(flux).mean() - lacking < 0.03
        snr = made[f"{name}_flux_over_error"].to_numpy()
        np.testing.assert_allclose(snr, flux / made[f"{name}_flux_error"].to_numpy(), rtol=1e-6)
    assert 0.002 < (made["bp_flux"].to_numpy() < 0).mean() < 0.05
    assert 16 < np.nanquantile(made["g_transit_mag"].to_numpy(), 0.01) < 18
    assert 19 < np.nanquantile(made["g_transit_mag"].to_numpy(), 0.99) < 21
    for name in ("noisy_data", "bp_reject", "rp_reject"):
        assert made[f"photometry_flag_{name}"].to_numpy().mean() == pytest.approx(0.04, abs=0.005)
    together = made["photometry_flag_bp_reject"].to_numpy() & made["photometry_flag_rp_reject"].to_numpy()
    assert together.mean() < 0.004


# --- DataLink ---


def test_the_four_structures_give_the_same_rows(link: gaia.DataLink, ids: list[int]) -> None:
    expected = rows_of_wide(
        {
            name: column.to_pylist()
            for name, column in zip(
                *(lambda table: (table.column_names, table.columns))(gaia.epoch_photometry(ids, 7)), strict=True
            )
        }
    )
    ((name, content),) = ask(link, [*ids, 12345], "WIDE").items()
    assert name == "EPOCH_PHOTOMETRY_WIDE.xml"
    assert rows_of_wide(table_of(content)) == expected

    ((name, content),) = ask(link, ids, "COMBINED").items()
    assert name == "EPOCH_PHOTOMETRY_COMBINED.xml"
    assert rows_of_long(table_of(content)) == expected

    members = ask(link, [f"Gaia DR3 {one}" for one in ids], "INDIVIDUAL")
    assert set(members) == {f"EPOCH_PHOTOMETRY-Gaia DR3 {one}.xml" for one in ids}
    rows = [rows_of_long(table_of(content)) for content in members.values()]
    assert set.union(*rows) == expected
    assert [{row[0] for row in some} for some in rows] == [{one} for one in ids]

    ((name, content),) = ask(link, ids, "RAW").items()
    assert name == "EPOCH_PHOTOMETRY_RAW.xml"
    raw = table_of(content)
    assert raw["source_id"].tolist() == ids
    flat = {}
    for column in raw.colnames[3:]:
        assert [len(one) for one in raw[column]] == raw["n_transits"].tolist()
        flat[column] = [plain(value) for one in raw[column] for value in one]
        if column.endswith("over_error"):  # astropy reads arrays of floats as doubles
            flat[column] = [None if one is None else float(np.float32(one)) for one in flat[column]]
    flat["source_id"] = np.repeat(ids, raw["n_transits"])
    assert rows_of_wide(flat) == expected


def test_raw_has_the_columns_of_the_release(link: gaia.DataLink, ids: list[int], data_dir: Path) -> None:
    real = Table.read(data_dir / "gaia" / "gaia_dr3_epoch_bulk.ecsv")
    (content,) = ask(link, ids, "RAW").values()
    text = html.unescape(content.decode())
    fields = {one.name: one for one in votable.parse_single_table(io.BytesIO(content)).fields}
    assert list(fields) == [name for name in real.colnames if name not in ("ra", "dec")]
    types = {"f8": "double", "f4": "float", "i8": "long", "i2": "short", "i1": "short", "b1": "boolean"}
    for name, one in fields.items():
        scalar = real[name].dtype != object
        example = real[name].dtype if scalar else np.asarray(real[name][0]).dtype
        assert one.datatype == types[example.str[1:]], name
        assert one.arraysize == (None if scalar else "*"), name
        if real[name].unit is not None:
            assert f'name="{name}" datatype="{one.datatype}" arraysize="*" unit="{real[name].unit}"' in text, name
    assert b'timeorigin="2455197.5"' in content


def test_missing_counts_in_arrays_are_masked(link: gaia.DataLink, ids: list[int]) -> None:
    (content,) = ask(link, ids, "RAW").values()
    raw = table_of(content)
    made = gaia.epoch_photometry(ids, 7)["g_transit_n_obs"]
    assert made.null_count > 0
    assert [plain(value) for one in raw["g_transit_n_obs"] for value in one] == made.to_pylist()


def test_newer_names_and_get(link: gaia.DataLink, ids: list[int]) -> None:
    for newer, older in [("DATAMODEL_GAIA", "RAW"), ("DATAMODEL_STANDARD", "INDIVIDUAL")]:
        assert ask(link, ids, newer) == ask(link, ids, older)
        answer = httpx.get(link.url, params={**ASKED, "ID": str(ids[0]), "DATA_STRUCTURE": newer})
        assert zipfile.is_zipfile(io.BytesIO(answer.content))


def test_valid_data_leaves_out_what_was_rejected(link: gaia.DataLink, ids: list[int]) -> None:
    (content,) = ask(link, ids, "COMBINED", VALID_DATA="true").values()
    (everything,) = ask(link, ids, "COMBINED").values()
    rows = rows_of_long(table_of(everything))
    assert rows_of_long(table_of(content)) == {row for row in rows if row[5] is not None and not row[8] and not row[9]}
    assert len(table_of(content)) < len(rows)


def test_some_sources_and_structures_may_be_lacking(link: gaia.DataLink, ids: list[int]) -> None:
    link.forget = {ids[1]}
    (content,) = ask(link, ids, "RAW").values()
    assert table_of(content)["source_id"].tolist() == [ids[0], *ids[2:]]
    assert ask(link, [ids[1], 4], "RAW") == {}
    link.structures = {"RAW"}
    for structure in ("INDIVIDUAL", "DATAMODEL_STANDARD", "NO_SUCH"):
        answer = httpx.post(link.url, data={**ASKED, "ID": "4", "DATA_STRUCTURE": structure})
        assert (answer.status_code, "not supported" in answer.text) == (400, True)


def test_bad_requests_are_told_so_in_plain_text(link: gaia.DataLink) -> None:
    for wrong in [
        {"ID": ",".join(["4"] * 5001)},
        {"ID": "M31"},
        {"ID": ""},
        {"RETRIEVAL_TYPE": "XP_SAMPLED"},
        {"RELEASE": "Gaia DR9"},
        {"FORMAT": "fits"},
    ]:
        answer = httpx.post(link.url, data={**ASKED, "ID": "4", "DATA_STRUCTURE": "RAW", **wrong})
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "text/plain")
        full = httpx.post(link.url, data={**ASKED, "ID": ",".join(["4"] * 5000), "DATA_STRUCTURE": "RAW"})
        assert full.status_code == 200
