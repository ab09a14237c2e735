"""Light curves of TESS, Kepler and K2: as lightkurve reads them, their clocks, flags and units, and broken files."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.time import Time
from helpers import mast
from hypothesis import given
from hypothesis import strategies as st

from lake.commit.validate import validate
from lake.errors import GranuleRejected
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from tasks.sources.tess_kepler import mast_products as facts
from tasks.sources.tess_kepler.mast_fits import read_product, remark_of, tables_of
from tasks.sources.tess_kepler.mast_products import BAND_UNITS, Product, named


class Frozen(NamedTuple):
    """What lightkurve 2.6.0 read of a real file, with astropy 8.0.2 and numpy 2.4.6.

    Parameters
    ----------
    n, n_default
        Cadences with quality_bitmask "none" and "default".
    first, total, digest
        The first time, the sum of all (math.fsum), and the start of the SHA-256 of their bytes, "none".
    cadences, flags
        Sums of cadenceno and quality, "none".
    sap, pdcsap
        Starts of the SHA-256 of flux and of flux_err where there is a flux, "none"; the sum (math.fsum) and the number
        of fluxes that are no NaN, "default".
    """

    n: int
    n_default: int
    first: float
    total: float
    digest: str
    cadences: int
    flags: int
    sap: tuple[str, str, float, int]
    pdcsap: tuple[str, str, float, int]


# fmt: off
FROZEN = {
    "hlsp_tess-spoc_tess_phot_0000000280773136-s0037_tess_v1_lc.fits": Frozen(
        3477, 3456, 2307.242077502666, 8066371.933812229,
        "721bd216796a2a51", 546980790, 4232,
        ("60d231780eb52204", "13f21c4803c621a9", 1174834485.75, 3456),
        ("9a9c4f7d42d10698", "a78d76ef2898f810", 1220220063.15625, 3456),
    ),
    "kplr002556081-2009166043257_llc.fits": Frozen(
        1639, 1626, 131.51299115348957, 242979.74814215253,
        "40fee0831174b94f", 3153436, 728144,
        ("206d31f900168739", "5c9522ea990f2542", 8376750.556640625, 1624),
        ("44b8a5cfc8eeeee1", "13ad2cd1b8e482da", 11779775.412109375, 1624),
    ),
    "kplr002556081-2009259160929_llc.fits": Frozen(
        4194, 4075, 169.52084052734426, 900002.8101595285,
        "a3bbbaf6a45cd75b", 21686248, 326696239,
        ("7f8434778f60c434", "0b9fa11b40650d81", 21074474.418945312, 4071),
        ("38e425a99d68eeaf", "af59174fb8b3ddf3", 27770094.49267578, 4070),
    ),
    "kplr002556081-2010355172524_llc.fits": Frozen(
        4295, 4229, 630.1750702439531, 2898374.4784252355,
        "70e6d12924a5d8c8", 118946753, 24294208,
        ("e02cb818cf9fca9d", "d9d9f54ad8241f76", 20497805.17919922, 4227),
        ("dde7fc2bf6b87f28", "fd53f298f76e1d8d", 31701585.052246094, 4226),
    ),
    "kplr005899262-2009131105131_llc.fits": Frozen(
        476, 473, 120.53866581121838, 59686.53368993707,
        "4ca932fc3a7b4e6f", 383418, 291552,
        ("df03ed4996a31814", "fdcfcd171ef5cf5e", 44204782.9375, 472),
        ("5d2c739f9b6b4381", "75d5ad80a63d2481", 50969055.90625, 469),
    ),
    "kplr010424789-2012088054726_llc.fits": Frozen(
        3965, 3551, 1099.4090991334888, 4522836.261975106,
        "0364b566186a1085", 200205887, 52817840,
        ("80a6ad34ed90b9a2", "b5e94d32854354dc", 30455317.93701172, 3551),
        ("462f831f583c6a80", "fbdabe40db90d81d", 47647036.65722656, 3550),
    ),
    "kplr011442793-2009350155506_llc.fits": Frozen(
        4228, 4140, 260.2241719882586, 1287769.2981211606,
        "587d262b7c2c2874", 40482484, 6053672,
        ("3891eb9c5462e3ad", "9d26b43e541143a5", 142408159.92578125, 4135),
        ("f5a63a7b06b31dd5", "7ed38872f63ce019", 165107528.39453125, 4134),
    ),
    "kplr011442793-2010009091648_llc.fits": Frozen(
        1021, 1011, 352.37699388519104, 370416.7144365347,
        "2a6b13785e802a2b", 12684904, 432272,
        ("7be7b9f7bee8182c", "ab8bced1c45feae1", 34497989.16796875, 1010),
        ("8fb6c9649e48e641", "ddb18e021c13b0c9", 43595838.375, 1008),
    ),
    "ktwo211436265-c05_llc.fits": Frozen(
        3657, 3450, 2306.6105571750377, 8572118.625921674,
        "ecbae5668c8d3bd9", 400015257, 212659360,
        ("2a30bab67d90f09e", "25daca5e9b5f584c", 980004563.78125, 3450),
        ("065b8f9a88af3341", "b38c24f6ed221cb1", 1010654917.8125, 3445),
    ),
    "ktwo211623711-c05_llc.fits": Frozen(
        3657, 3450, 2306.610572598671, 8572118.64419813,
        "1eb140f9ea396624", 400015257, 212178080,
        ("7a7535c25b529f0d", "906f7af1e9e8554a", 883849133.296875, 3449),
        ("b40e87398bf6598e", "119da381c860a833", 907546236.875, 3437),
    ),
    "ktwo211719918-c05_llc.fits": Frozen(
        3657, 3450, 2306.6110458553594, 8572120.822277736,
        "6d06dd9ae27e71cf", 400015257, 211956896,
        ("61aceea4351d386a", "53f625845371e95a", 20891012.618164062, 3449),
        ("0036fe4d40dffff7", "e16fccc74a032beb", 23723231.673339844, 3448),
    ),
    "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits": Frozen(
        19261, 18103, 1325.2952597688304, 25795151.28592679,
        "b4370e011b7ecb46", 1550240969, 151792,
        ("a2fc50adbc608f6c", "60a1a5292bfc7bc4", 145627258.21289062, 18103),
        ("b2a9d58245a7784b", "657c743b1658bb3b", 167369947.78515625, 18103),
    ),
    "tess2018206045859-s0001-0000000038846515-0120-s_lc.fits": Frozen(
        19261, 18103, 1325.2947714819634, 25795143.585248858,
        "0e897852e56c4c74", 1550240969, 151792,
        ("057e0a94ebf657ca", "c0aa544bbbd609f6", 203683974.43066406, 18103),
        ("b30234154841fa06", "06602629aae997e0", 218573018.7373047, 18103),
    ),
}
# fmt: on
BROKEN = {"HAT-P-11_Kepler_Q0_snippet.fits": "CREATOR is absent"}  # a table that lightkurve wrote, of arrays

# Keyword DATE-OBS of tables, "TSTART as UTC calendar date", less the Z, and the light travel time in it, at most.
STARTED = {
    "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits": "2018-07-25T19:03:01.260",
    "kplr002556081-2009166043257_llc.fits": "2009-05-13T00:01:07.136",
    "kplr002556081-2009259160929_llc.fits": "2009-06-20T00:10:27.146",
    "ktwo211436265-c05_llc.fits": "2015-04-27T02:18:11.949",
}
TESS_FILE = "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits"


def digest(values: Any, kind: str) -> str:
    values = np.array(values, kind)
    if values.dtype.kind == "f":
        values[np.isnan(values)] = np.nan
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def unmasked(values: Any) -> Any:
    """What astropy masks is NaN below."""
    return np.asarray(getattr(values, "unmasked", values))


def cast(*products: Product) -> dict[str, pa.Table]:
    """What staging makes of the tables, as far as the lake's rules go."""
    tables = tables_of(products, "tess_kepler", "2026")
    done = {
        name: TABLES[name].cast(table.append_column("granule", pa.array(["g"] * len(table), pa.string())))
        for name, table in tables.items()
    }
    validate("tess_kepler", "2026", done, BAND_UNITS)
    return done


def rows_of(product: Product, band: str) -> dict[str, list[Any]]:
    rows = cast(product)["lightcurves"]
    return rows.filter(pa.compute.equal(rows["band"].combine_chunks().cast(pa.string()), band)).to_pydict()


def read(kind: str = "spoc", **changes: Any) -> Product:
    return read_product(mast.product(kind, **changes), "made.fits")


def test_every_real_file_is_listed(data_dir: Path) -> None:
    assert {path.name for path in (data_dir / "kepler_k2_tess").iterdir()} == {*FROZEN, *BROKEN}


@pytest.mark.parametrize("name", FROZEN)
def test_real_files_are_what_lightkurve_reads(data_dir: Path, name: str) -> None:
    """To the last bit: lightkurve's own reading, frozen."""
    product, frozen = read_product(data_dir / "kepler_k2_tess" / name, name), FROZEN[name]
    assert (len(product.time), int(product.is_good.sum())) == (frozen.n, frozen.n_default)
    assert (float(product.time[0]), math.fsum(product.time)) == (frozen.first, frozen.total)
    assert digest(product.time, "<f8") == frozen.digest
    assert (product.cadence.sum(), product.quality.sum()) == (frozen.cadences, frozen.flags)
    for flux in product.pipeline.fluxes:
        curve, theirs = product.curves[flux.band], getattr(frozen, flux.band.rsplit("_", 1)[1])
        assert (digest(curve.flux, "<f4"), digest(curve.error, "<f4")) == theirs[:2]
        rows = rows_of(product, flux.band)
        kept = [value for value, good in zip(rows["flux"], rows["good"], strict=True) if good]
        assert (math.fsum(kept), len(kept)) == theirs[2:]
        assert None not in kept
        assert [value is not None for value in rows["flux"]] == rows["detected"]
        assert rows["mjd"] == rows["bmjd_tdb"] == (product.time + product.pipeline.mission.offset_mjd).tolist()
        assert set(rows["unit"]) == {"electron.s**-1"}
        # The first cadence of one file has none.
        assert rows["background"].count(None) < 0.1 * len(rows["background"])
        assert rows["quality"] == product.quality.astype(int).tolist()


@pytest.mark.oracle
@pytest.mark.parametrize("name", FROZEN)
def test_lightkurve_itself_agrees(data_dir: Path, name: str) -> None:
    """The same against the lightkurve that is installed, if one is."""
    lightkurve = pytest.importorskip("lightkurve", exc_type=ImportError)
    path = data_dir / "kepler_k2_tess" / name
    product = read_product(path, name)
    for flux in product.pipeline.fluxes:
        theirs = lightkurve.read(str(path), quality_bitmask="none", flux_column=flux.column.lower())
        np.testing.assert_array_equal(product.time, theirs.time.value)
        np.testing.assert_array_equal(product.curves[flux.band].flux, unmasked(theirs.flux.value))
        # astropy's sum is in two parts and may round otherwise.
        assert np.abs(product.mjd - theirs.time.mjd).max() < 1.5e-11


@pytest.mark.parametrize("kind", mast.KINDS)
def test_lightkurve_takes_generated_files_for_the_same(tmp_path: Path, kind: str) -> None:
    """So the layouts that no real file vouches for are those that lightkurve's readers expect."""
    lightkurve = pytest.importorskip("lightkurve", exc_type=ImportError)
    path = tmp_path / mast.name_of(kind)
    path.write_bytes(mast.product(kind))
    product = read_product(path, path.name)
    masked = {} if kind == "k2sff" else {"quality_bitmask": "none"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = lightkurve.read(str(path), **masked)
        kept = theirs if kind == "k2sff" else lightkurve.read(str(path))
    author = {"kepler": "Kepler", "k2": "Kepler"}.get(kind, kind.upper().replace("_", "-"))
    assert theirs.meta["AUTHOR"] == author
    np.testing.assert_array_equal(product.time, theirs.time.value)
    assert len(kept) == product.is_good.sum()
    band = next(f.band for f in product.pipeline.fluxes if f.column.lower() == theirs.meta["FLUX_ORIGIN"])
    np.testing.assert_array_equal(product.curves[band].flux, unmasked(theirs.flux.value))


@pytest.mark.parametrize("name", BROKEN)
def test_known_broken_files_are_rejected(data_dir: Path, name: str) -> None:
    with pytest.raises(GranuleRejected, match=f"{name}: {BROKEN[name]}"):
        read_product(data_dir / "kepler_k2_tess" / name, name)


@pytest.mark.parametrize(("name", "utc"), STARTED.items())
def test_time_zero_is_that_of_dates_in_headers(data_dir: Path, name: str, utc: str) -> None:
    """A wrong zero is days off; DATE-OBS is UTC with or without light's travel to the barycentre, 8.4 min at most."""
    product = read_product(data_dir / "kepler_k2_tess" / name, name)
    started = Time(utc, scale="utc").tdb.mjd
    assert product.mjd_start is not None
    assert abs(product.mjd_start - started) * 1440 < 8.4
    # Half a cadence from the start to the middle of the first.
    assert product.cadence_s is not None
    assert (product.mjd[0] - product.mjd_start) * 86400 == pytest.approx(product.cadence_s / 2, abs=1)


def test_published_zero_points() -> None:
    """JD 2458325.29 is 2018-07-25 19:00, the start of sector 1; BKJD 131.5 is 2009-05-13, that of quarter 1."""
    first = {kind: read(kind).mjd_start for kind in ("spoc", "kepler")}
    dates = {kind: Time(mjd, format="mjd").iso[:10] for kind, mjd in first.items()}
    assert dates == {"spoc": "2018-07-25", "kepler": "2009-05-13"}
    assert (facts.TESS.offset_mjd, facts.KEPLER.offset_mjd, facts.K2.offset_mjd) == (56999.5, 54832.5, 54832.5)


def test_masks_are_lightkurves_defaults() -> None:
    """Values of lightkurve 2.6.0; 1130799 is in its documentation, too."""
    assert (facts.TESS_MASK, facts.KEPLER_MASK) == (17087, 1130799)


def test_lightkurve_still_has_these_masks() -> None:
    utils = pytest.importorskip("lightkurve.utils", exc_type=ImportError)
    assert utils.TessQualityFlags.DEFAULT_BITMASK == facts.TESS_MASK
    assert utils.KeplerQualityFlags.DEFAULT_BITMASK == facts.KEPLER_MASK


def test_a_sector_of_tess_in_the_lake(data_dir: Path) -> None:
    product = read_product(data_dir / "kepler_k2_tess" / TESS_FILE, TESS_FILE)
    tables = cast(product)
    assert tables["lightcurves"].num_rows == 2 * 19261
    assert set(tables["lightcurves"]["band"].to_pylist()) == {"tess_spoc_sap", "tess_spoc_pdcsap"}
    assert set(tables["lightcurves"]["cadence_s"].to_pylist()) == {120.0}
    (source,) = tables["sources"].to_pylist()
    # The primary header's: the table's RA_OBJ is 63.3748.
    assert (source["source_id"], source["ra"], source["dec"]) == ("TIC 25155310", 63.37389, -69.226789)
    assert source["hpx29"] == int(hpx29(63.37389, -69.226789))
    (exposure,) = tables["exposures"].to_pylist()
    assert exposure["exposure_id"] == "tess-s0001-0000000025155310-120s"
    assert exposure["exposure_s"] == pytest.approx(22.083701445106 * 86400)
    assert exposure["mjd_stop"] == pytest.approx(1353.178026739609 + 56999.5, abs=1e-9)
    details = json.loads(exposure["details"])
    wanted = {"sector": 1, "camera": 4, "ccd": 1, "crowdsap": 0.97266585, "flfrcsap": 0.8463071, "undated": 815}
    assert wanted.items() <= details.items()
    pixels = np.array(details["aperture"]["pixels"])
    assert pixels.shape == (11, 11)
    assert (pixels & 2 > 0).sum() == details["aperture"]["n"] == 9
    assert remark_of([product]) == f"815 cadences without TIME left out ({product.exposure_id})"


def test_exposures_of_kepler_and_k2(data_dir: Path) -> None:
    names = ("kplr002556081-2009166043257_llc.fits", "ktwo211436265-c05_llc.fits")
    quarter, campaign = (read_product(data_dir / "kepler_k2_tess" / name, name) for name in names)
    assert (quarter.exposure_id, quarter.source_id) == ("kepler-q01-002556081-1765s-d0131", "KIC 2556081")
    assert (campaign.exposure_id, campaign.source_id) == ("k2-c05-211436265-1765s-d2306", "EPIC 211436265")
    assert (quarter.details["quarter"], quarter.details["channel"], campaign.details["campaign"]) == (1, 11, 5)
    assert quarter.cadence_s == pytest.approx(1765.463)


def test_files_of_one_source_come_together(data_dir: Path) -> None:
    """Three quarters: one source, three exposures, rows of all."""
    names = [name for name in FROZEN if "002556081" in name]
    tables = cast(*(read_product(data_dir / "kepler_k2_tess" / name, name) for name in names))
    assert [tables[one].num_rows for one in ("sources", "exposures", "lightcurves")] == [1, 3, 2 * (1639 + 4194 + 4295)]
    assert [table.num_rows for table in cast().values()] == [0, 0, 0]


def test_the_latest_position_is_taken() -> None:
    early, late = (
        read(
            sequence=one,
            primary={"RA_OBJ": 10.0 + one},
            columns=_times(1400.0 + 30 * one, 50),
            TSTART=1400.0 + 30 * one,
        )
        for one in (1, 2)
    )
    for order in ((early, late), (late, early)):
        assert cast(*order)["sources"]["ra"].to_pylist() == [12.0]


def _times(first: float, n: int) -> mast.Columns:
    return {"TIME": ("D", "BJD - 2457000, days", first + np.arange(n) / 720)}


@pytest.mark.parametrize("kind", mast.KINDS)
def test_pipelines_are_never_mixed(kind: str) -> None:
    """Each has bands of its own in a unit of its own, whatever its file is called."""
    product = read_product(mast.product(kind), mast.name_of(kind))
    assert product.pipeline.name == kind
    rows = cast(product)["lightcurves"]
    bands = set(rows["band"].to_pylist())
    assert bands == set(product.curves) <= {flux.band for flux in product.pipeline.fluxes}
    others = {flux.band for one in facts.PIPELINES.values() if one.name != kind for flux in one.fluxes}
    assert not bands & others
    assert set(rows["unit"].to_pylist()) == {"" if kind in ("qlp", "k2sff") else "electron.s**-1"}
    assert set(rows["exposure_id"].to_pylist()) == {product.exposure_id}
    assert product.exposure_id.endswith(kind) == (kind not in ("spoc", "kepler", "k2"))


def test_every_band_is_described_once() -> None:
    assert len(BAND_UNITS) == len(facts.BANDS) == 17
    taken = {band.fornax_band: band.band for band in facts.BANDS if band.fornax_band}
    assert taken == {"TESS": "tess_spoc_pdcsap", "Kepler": "kepler_pdcsap", "K2": "k2_pdcsap"}


def test_what_is_known_of_the_layouts_of_others() -> None:
    qlp, sff, everest = read("qlp"), read("k2sff"), read("everest")
    assert set(qlp.curves) == {"tess_qlp_sap", "tess_qlp_kspsap"}
    assert np.isnan(qlp.curves["tess_qlp_sap"].error).all()
    assert np.isnan(qlp.background).all()  # not in the unit of its fluxes
    assert np.isfinite(qlp.x).all()
    assert np.isnan(sff.quality).all()
    assert sff.is_good.all()
    assert set(cast(sff)["lightcurves"]["quality"].to_pylist()) == {None}
    assert sff.cadence_s is None
    assert sff.exposure_id == "k2-c01-025155310-d2306-k2sff"
    assert [remark for remark in sff.remarks if "assumed" in remark] == list(sff.remarks) != []
    assert set(everest.curves) == {"k2_everest_raw", "k2_everest_flux", "k2_everest_cor"}
    assert np.isfinite(everest.curves["k2_everest_raw"].error).any()
    assert np.isnan(everest.curves["k2_everest_flux"].error).all()
    later = read("qlp", drop=("KSPSAP_FLUX", "KSPSAP_FLUX_ERR"), columns={"DET_FLUX": ("E", None, np.ones(50, "f4"))})
    assert set(later.curves) == {"tess_qlp_sap", "tess_qlp_det"}


@pytest.mark.parametrize(
    ("flag", "kept"), [(0, True), (1, False), (64, True), (128, False), (2048, True), (16384, False)]
)
def test_good_is_what_lightkurve_keeps(flag: int, kept: bool) -> None:
    flags = {"QUALITY": ("J", None, np.full(3, flag, np.int32))}
    flux = {"SAP_FLUX": ("E", "e-/s", np.array([1, np.nan, 3], np.float32))}
    rows = rows_of(read(n=3, columns=flags | flux | _times(1400.0, 3)), "tess_spoc_sap")
    assert rows["good"] == [kept, False, kept]
    assert rows["quality"] == [flag] * 3
    assert rows["detected"] == [True, False, True]
    assert rows["flux"] == [1.0, None, 3.0]
    assert rows["flux_err"][1] is None


def test_what_a_file_lacks_is_null_and_never_zero() -> None:
    made = read(drop=("SAP_BKG", "MOM_CENTR1", "MOM_CENTR2"), EXPOSURE=None, CROWDSAP=None, TSTART=None)
    tables = cast(made)
    for name in ("background", "x", "y"):
        assert tables["lightcurves"][name].null_count == tables["lightcurves"].num_rows
    exposure = tables["exposures"].to_pylist()[0]
    assert exposure["exposure_s"] is None
    assert "crowdsap" not in json.loads(exposure["details"])
    assert made.mjd_start == made.mjd[0]


def test_infinite_fluxes_are_missing_and_told() -> None:
    flux = {"SAP_FLUX": ("E", "e-/s", np.array([1, np.inf, -np.inf], np.float32))}
    product = read(n=3, columns=flux | _times(1400.0, 3))
    assert rows_of(product, "tess_spoc_sap")["flux"] == [1.0, None, None]
    assert remark_of([product]) == f"2 infinite values of SAP_FLUX taken for missing ({product.exposure_id})"
    assert remark_of([]) is None


def test_cadences_without_time_are_left_out_and_counted() -> None:
    times = np.array([1400.0, np.nan, 1400.5, np.nan, 1401.0])
    product = read(n=5, columns={"TIME": ("D", "BJD - 2457000, days", times)})
    assert product.time.tolist() == [1400.0, 1400.5, 1401.0]
    assert product.cadence.tolist() == [70000, 70002, 70004]
    assert (product.undated, product.details["undated"]) == (2, 2)
    nothing = read(n=2, columns={"TIME": ("D", None, np.full(2, np.nan))}, TSTART=None, TSTOP=None)
    assert cast(nothing)["lightcurves"].num_rows == 0
    assert (nothing.mjd_start, nothing.undated) == (None, 2)


def test_arrays_are_native_and_the_files_own_bytes_are_let_go() -> None:
    product = read()
    for values in (product.time, product.quality, product.x, product.curves["tess_spoc_sap"].flux):
        assert values.dtype == np.dtype("=f8")
        values[:1] = -1


def test_gzip_and_paths(tmp_path: Path) -> None:
    body = mast.product("k2", target=211436265, sequence=5)
    path = tmp_path / (mast.name_of("k2", 211436265, 5) + ".gz")
    path.write_bytes(gzip.compress(body))
    np.testing.assert_array_equal(read_product(path, path.name).time, read_product(body, "made").time)


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("spoc", {"primary": {"TELESCOP": "HST"}}, "TELESCOP is HST, not TESS or Kepler"),
        ("qlp", {"primary": {"TELESCOP": "Kepler"}}, "TELESCOP is KEPLER, not TESS"),
        ("spoc", {"primary": {"CREATOR": "TargetPixelExporterPipelineModule"}}, "CREATOR is TARGETPIXEL"),
        ("spoc", {"primary": {"TICID": None}, "TICID": None}, "it has no TICID"),
        ("spoc", {"primary": {"SECTOR": None}}, "it has no SECTOR"),
        ("spoc", {"primary": {"SECTOR": -1}}, "SECTOR is -1"),
        ("spoc", {"primary": {"RA_OBJ": 400.0}}, "RA_OBJ, DEC_OBJ are 400"),
        ("spoc", {"TIMEREF": "LOCAL"}, "TIMEREF is LOCAL, not SOLARSYSTEM"),
        ("spoc", {"TIMEREF": None}, "TIMEREF is absent"),
        ("qlp", {"TIMEREF": "GEOCENTRIC"}, "TIMEREF is GEOCENTRIC"),
        ("spoc", {"TIMESYS": "UTC"}, "TIMESYS is UTC, not TDB"),
        ("spoc", {"TIMEUNIT": "s"}, "TIMEUNIT is S, not D"),
        ("spoc", {"BJDREFI": 2454833}, "times count from 2454833.0 in BJDREFI, BJDREFF, not from 2457000"),
        ("kepler", {"BJDREFI": 2457000}, "times count from 2457000.0 in BJDREFI, BJDREFF, not from 2454833"),
        ("spoc", {"BJDREFF": 0.5}, "times count from 2457000.5"),
        ("spoc", {"BJDREFI": None}, "BJDREFI is absent"),
        ("spoc", {"units": {"TIME": "BJD - 2454833"}}, "times count from 2454833.0 in the unit of TIME"),
        ("k2sff", {"units": {"T": "d"}}, "BJDREFI is absent"),
        ("spoc", {"TIMEPIXR": 0.0}, r"TIMEPIXR is 0\.0"),
        ("spoc", {"TIMEDEL": -1.0}, "TIMEDEL is -1"),
        ("spoc", {"columns": _times(131.0, 50)}, "tess did not observe then"),
        ("kepler", {"columns": {"TIME": ("D", None, np.full(50, 3000.0) + np.arange(50))}}, "kepler did not observe"),
        ("spoc", {"columns": {"TIME": ("D", None, np.full(50, 1400.0))}}, r"TIME 1400\.0 comes twice"),
        ("spoc", {"extname": "TARGETTABLES"}, "no table LIGHTCURVE, but TARGETTABLES"),
        ("spoc", {"drop": ("PDCSAP_FLUX",)}, "no column of numbers PDCSAP_FLUX"),
        ("kepler", {"drop": ("SAP_QUALITY", "TIME")}, "no column of numbers SAP_QUALITY, TIME"),
        ("qlp", {"drop": ("SAP_FLUX", "KSPSAP_FLUX")}, "no column of numbers SAP_FLUX"),
        ("spoc", {"units": {"SAP_FLUX": "mag"}}, "the unit of SAP_FLUX is 'mag'"),
        ("spoc", {"units": {"SAP_FLUX_ERR": None}}, "the unit of SAP_FLUX_ERR is ''"),
        ("qlp", {"units": {"SAP_FLUX": "e-/s"}}, "the unit of SAP_FLUX is 'e-/s', not ''"),
    ],
)
def test_files_that_contradict_are_rejected(kind: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GranuleRejected, match=reason) as caught:
        read(kind, **changes)
    assert caught.value.reason.startswith("made.fits: ")


def test_a_name_must_be_true() -> None:
    body = mast.product(target=25155310)
    for name in (mast.name_of("spoc", 38846515), mast.name_of("spoc", sequence=2), mast.name_of("tess_spoc")):
        with pytest.raises(GranuleRejected, match="it is of TIC 25155310, sector 1, spoc"):
            read_product(body, name)
    assert read_product(body, "anything").sequence == 1
    assert named("folder/ktwo200000000-c91_slc.fits") == facts.Named(facts.K2_SOC, 200000000, 91)
    assert named("hlsp_k2sff_k2_readme.txt") is None


@pytest.mark.parametrize("part", ["header", "table", "aperture", "nothing"])
def test_files_cut_short_are_rejected(part: str) -> None:
    body = mast.product()
    size = {"header": 3000, "table": len(body) - 12000, "aperture": len(body) - 2870, "nothing": 0}[part]
    with pytest.raises(GranuleRejected, match=r"made\.fits: it is (cut short|empty)"):
        read_product(body[:size], "made.fits")


def test_damage_is_seen() -> None:
    body = bytearray(mast.product())
    with fits.open(io.BytesIO(bytes(body))) as opened:
        at = opened[1].fileinfo()["datLoc"]
    body[at + 500] ^= 4
    with pytest.raises(GranuleRejected, match=r"made\.fits: it is damaged: HDU 1 has not the CHECKSUM it states"):
        read_product(bytes(body), "made.fits")
    assert read_product(mast.product(checksum=False), "made.fits").undated >= 0


def test_other_files_are_rejected(tmp_path: Path) -> None:
    for body, reason in ((b"<html>", "it is no FITS file"), (gzip.compress(mast.product())[:-40], "gzip")):
        with pytest.raises(GranuleRejected, match=f"made.fits: {reason}"):
            read_product(body, "made.fits")
    with pytest.raises(FileNotFoundError):
        read_product(tmp_path / "none.fits", "none.fits")


@given(
    kind=st.sampled_from(mast.KINDS), seed=st.integers(0, 2**32), n=st.integers(1, 40), target=st.integers(1, 999999999)
)
def test_whatever_is_in_a_file_is_in_the_lake(kind: str, seed: int, n: int, target: int) -> None:
    body = mast.product(kind, seed=seed, n=n, target=target)
    product = read_product(body, mast.name_of(kind, target))
    with fits.open(io.BytesIO(body)) as opened:
        data = opened[1].data
        time = np.array(data[product.pipeline.time], float)
        dated = ~np.isnan(time)
        np.testing.assert_array_equal(product.time, time[dated])
        assert product.undated == n - dated.sum()
        tables = cast(product)
        rows = tables["lightcurves"]
        for flux in product.pipeline.fluxes:
            if flux.band in product.curves:
                own = rows.filter(pa.compute.equal(rows["band"].combine_chunks().cast(pa.string()), flux.band))
                wanted = np.array(data[flux.column], np.float32)[dated]
                np.testing.assert_array_equal(own["flux"].to_numpy(), wanted)
                assert own["flux"].null_count == np.isnan(wanted).sum()
    assert rows.num_rows == dated.sum() * len(product.curves)
    assert tables["exposures"]["exposure_id"].to_pylist() == [product.exposure_id]


_MADE = mast.product(n=20)


@given(st.integers(0, len(_MADE) - 1), st.integers(1, 255))
def test_one_byte_of_damage_is_rejected_or_of_no_account(at: int, change: int) -> None:
    """With the file's checksums no damage passes but that to an HDU which is not needed, or between HDUs."""
    body = bytearray(_MADE)
    body[at] ^= change
    product = None
    with contextlib.suppress(GranuleRejected):
        product = read_product(bytes(body), "made.fits")
    if product is not None:
        whole = read_product(_MADE, "made.fits")
        assert cast(product)["lightcurves"] == cast(whole)["lightcurves"]
        assert cast(product)["sources"] == cast(whole)["sources"]


@given(st.binary(max_size=6000), st.booleans())
def test_any_bytes_are_rejected(body: bytes, is_fits: bool) -> None:
    with pytest.raises(GranuleRejected):
        read_product(b"SIMPLE  =" + body if is_fits else body, "made.fits")
