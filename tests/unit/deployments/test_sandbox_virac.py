"""The stand-in for VIRAC's tiles: columns and types, what must hold in a tile, every way of breaking one."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import h5py
import hpgeom
import numpy as np
import pytest

from benchmarks.virac_per_source import HEADER, extract_folder, extract_tile
from deployments.sandbox import virac

# Tests of the archives see what is wrong with it, too.
pytestmark = pytest.mark.long

TINY: dict[str, Any] = {"n_sources": 40, "n_pawprints": 130, "epochs": (60, 90), "seed": 5}
TILES = {1024: 9_000_000, 512: 2_400_001, 256: 600_003}
DETECTIONS = [name for name in virac.SERIES if name != "catindexidcovered"]
CATALOGUE = {
    "catindexid": "i4",
    "filename": "S20",
    "filter": "S2",
    "tile": "S4",
    "tileloc": "i4",
    "mjdobs": "f8",
    "seeing": "f4",
    "exptime": "f4",
    "skylevel": "f4",
    "ellipticity": "f4",
}
SOURCES = {
    "sourceid": "i8",
    "ra": "f8",
    "dec": "f8",
    "l": "f8",
    "b": "f8",
    "ra_error": "f4",
    "dec_error": "f4",
    "parallax": "f4",
    "pmra": "f4",
    "pmdec": "f4",
    "parallax_error": "f4",
    "pmra_error": "f4",
    "pmdec_error": "f4",
    "chisq": "f4",
    "uwe": "f4",
    "astfit_params": "i4",
    "duplicate": "i4",
    "has_variabilityIndices": "?",
    "ks_n_ambiguous": "i4",
    "ks_n_chilt5": "i4",
} | {
    f"{band}_{name}": "i4" if name.startswith("n_") else "f4"
    for band in ("ks", "z", "y", "j", "h")
    for name in (
        "n_detections",
        "n_observations",
        "med_mag",
        "mean_mag",
        "ivw_mean_mag",
        "chilt5_ivw_mean_mag",
        "std_mag",
        "mad_mag",
        "ivw_err_mag",
        "chilt5_ivw_err_mag",
    )
}
VARIABILITY = {"sourceid": "i8", "ks_n_epochs": "i4"} | {
    f"ks_{name}": "f4"
    for name in (
        "stdev",
        "mad",
        "kurtosis",
        "skew",
        "eta",
        "stetson_i",
        "stetson_j",
        "stetson_k",
        "p0",
        "p1",
        "p5",
        "p16",
        "p25",
        "p75",
        "p84",
        "p95",
        "p99",
        "p100",
    )
}


def write(folder: Path, nside: int = 1024, **more: Any) -> Path:
    path = folder / virac.tile_name(nside, TILES[nside])
    virac.write_tile(path, nside=nside, pixel=TILES[nside], **(TINY | more))
    return path


def read(path: Path) -> dict[str, Any]:
    """Everything in a tile, by path; ragged arrays as lists."""
    found: dict[str, Any] = {}

    def add(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = list(item[:]) if h5py.check_vlen_dtype(item.dtype) not in (None, str) else item[:]

    with h5py.File(path, "r") as file:
        file.visititems(add)
    return found


def bands(tile: dict[str, Any]) -> list[str]:
    return [(v.decode() if isinstance(v, bytes) else v).strip() for v in tile["catIndex/filter"]]


def positions(tile: dict[str, Any], name: str) -> list[np.ndarray]:
    """Ragged ids as row numbers of the catalogue."""
    row_of = {one: row for row, one in enumerate(tile["catIndex/catindexid"].tolist())}
    return [np.array([row_of[one] for one in ids.tolist()], dtype=int) for ids in tile[f"timeSeries/{name}"]]


def defects(path: Path, nside: int = 1024) -> set[str]:
    """What is wrong with a tile, found in the plainest way."""
    try:
        tile = read(path)
    except OSError:
        return {"unreadable"}
    series = {name: tile.get(f"timeSeries/{name}") for name in virac.SERIES}
    if any(values is None for values in series.values()):
        return {"missing"}
    if not all(isinstance(values, list) for values in series.values()):
        return {"not ragged"}
    ids, ra, dec = (tile[f"sourceList/{name}"] for name in ("sourceid", "ra", "dec"))
    if any(len(values) != len(ids) for values in series.values()):
        return {"row count"}
    found = set()
    if any(len({len(series[name][n]) for name in DETECTIONS}) > 1 for n in range(len(ids))):
        found.add("lengths")
    known = set(tile["catIndex/catindexid"].tolist())
    for some, every in zip(series["catindexid"], series["catindexidcovered"], strict=True):
        found |= {"unknown id"} if not set(every.tolist()) <= known else set()
        found |= {"not covered"} if not set(some.tolist()) <= set(every.tolist()) else set()
    if len(set(ids.tolist())) < len(ids):
        found.add("duplicate")
    if not set(bands(tile)) <= set(virac.BANDS):
        found.add("filter")
    if not np.isfinite(tile["catIndex/mjdobs"]).all():
        found.add("mjdobs")
    if not np.isfinite(ra).all():
        return found | {"position"}
    nest = hpgeom.ring_to_nest(1024, ids // 10**6)
    if (hpgeom.nest_to_ring(nside, nest // (1024 // nside) ** 2) != TILES[nside]).any():
        found.add("foreign")
    if (hpgeom.angle_to_pixel(1024, ra, dec, nest=False) != ids // 10**6).any():
        found.add("foreign")
    return found


DEFECTS = {
    "truncated": "unreadable",
    "empty": "unreadable",
    "not_hdf5": "unreadable",
    "damaged_heap": "unreadable",
    "damaged_chunk": "unreadable",
    "no_time_series": "missing",
    "no_hfad_mag": "missing",
    "wrong_dtype": "not ragged",
    "wrong_rank": "not ragged",
    "unequal_lengths": "lengths",
    "unknown_catindexid": "unknown id",
    "not_covered": "not covered",
    "foreign_sourceid": "foreign",
    "duplicate_sourceid": "duplicate",
    "unknown_filter": "filter",
    "nonfinite_position": "position",
    "nonfinite_mjdobs": "mjdobs",
    "row_count": "row count",
}


@pytest.mark.parametrize("nside", TILES)
def test_a_tile_has_the_columns_of_the_release_and_is_sound(tmp_path: Path, nside: int) -> None:
    path = write(tmp_path, nside)
    assert path.name == f"n{nside}_{TILES[nside]}.hdf5"
    with h5py.File(path, "r") as file:
        assert set(file) == {"catIndex", "sourceList", "timeSeries", "variabilityIndices"}
        for group, kinds in (("catIndex", CATALOGUE), ("sourceList", SOURCES), ("variabilityIndices", VARIABILITY)):
            assert {name: file[group][name].dtype for name in file[group]} == {k: np.dtype(v) for k, v in kinds.items()}
            assert len({file[group][name].shape for name in file[group]}) == 1
        ragged = {name: h5py.check_vlen_dtype(file["timeSeries"][name].dtype) for name in file["timeSeries"]}
        assert ragged == {name: np.dtype(kind) for name, kind in virac.SERIES.items()}
    assert defects(path, nside) == set()
    tile = read(path)
    assert len(set(bands(tile))) == 5
    mjd = tile["catIndex/mjdobs"]
    assert 55_259 < mjd.min() < mjd.max() < 58_721
    assert (np.char.str_len(tile["catIndex/filename"]) == 18).all()
    ids = tile["sourceList/sourceid"]
    assert (len(np.unique(ids // 10**6)) == 1) == (nside == 1024)
    assert ((ids % 10**6) > 0).all()


def test_sums_in_the_source_list_are_those_of_the_light_curves(tmp_path: Path) -> None:
    tile = read(write(tmp_path, n_sources=120))
    band, mjd = np.array(bands(tile)), tile["catIndex/mjdobs"]
    rows, covered = positions(tile, "catindexid"), positions(tile, "catindexidcovered")
    at = 0
    for n in range(120):
        own = {name: tile[f"timeSeries/{name}"][n] for name in DETECTIONS}
        for one in virac.BANDS:
            here = band[rows[n]] == one
            mag, error, good = own["hfad_mag"][here].astype("f8"), own["hfad_emag"][here], own["chi"][here] < 5
            weight = error.astype("f8") ** -2
            said = {k.split("_", 1)[1]: v[n] for k, v in tile.items() if k.startswith(f"sourceList/{one.lower()}_")}
            assert said["n_detections"] == here.sum()
            assert said["n_observations"] == (band[covered[n]] == one).sum()
            if here.any():
                assert said["med_mag"] == pytest.approx(np.median(mag), abs=2e-6)
                assert said["mad_mag"] == pytest.approx(np.median(np.abs(mag - np.median(mag))), abs=2e-6)
                assert said["mean_mag"] == pytest.approx(mag.mean(), abs=2e-6)
                assert said["std_mag"] == pytest.approx(mag.std(), abs=2e-6)
                assert said["ivw_mean_mag"] == pytest.approx(np.average(mag, weights=weight), abs=2e-6)
                assert said["ivw_err_mag"] == pytest.approx(weight.sum() ** -0.5, rel=1e-5)
            else:
                assert np.isnan([said["med_mag"], said["mean_mag"], said["ivw_err_mag"]]).all()
            if good.any():
                expected = np.average(mag[good], weights=weight[good])
                assert said["chilt5_ivw_mean_mag"] == pytest.approx(expected, abs=2e-6)
                assert said["chilt5_ivw_err_mag"] == pytest.approx(weight[good].sum() ** -0.5, rel=1e-5)
        ks = band[rows[n]] == "Ks"
        assert tile["sourceList/ks_n_ambiguous"][n] == own["ambiguous_match"][ks].sum()
        assert tile["sourceList/ks_n_chilt5"][n] == (own["chi"][ks] < 5).sum()
        assert tile["sourceList/has_variabilityIndices"][n] == (ks.sum() >= 10)
        if ks.sum() >= 10:
            mag = own["hfad_mag"][ks].astype("f8")[np.argsort(mjd[rows[n]][ks])]
            said = {k.split("ks_")[1]: v[at] for k, v in tile.items() if k.startswith("variabilityIndices/ks_")}
            assert tile["variabilityIndices/sourceid"][at] == tile["sourceList/sourceid"][n]
            assert said["n_epochs"] == len(mag)
            assert said["stdev"] == pytest.approx(mag.std(), abs=2e-6)
            assert said["eta"] == pytest.approx((np.diff(mag) ** 2).sum() / (len(mag) - 1) / mag.var(), rel=1e-4)
            for percent in (0, 1, 5, 16, 25, 75, 84, 95, 99, 100):
                assert said[f"p{percent}"] == pytest.approx(np.percentile(mag, percent), abs=2e-6)
            at += 1
    assert at == len(tile["variabilityIndices/sourceid"]) < 120


def test_layouts_hold_the_same(tmp_path: Path) -> None:
    for layout in ["contiguous", "chunked+gzip"]:
        for gzip_series in [False, True]:
            path = write(tmp_path, layout=layout, gzip_series=gzip_series)
            with h5py.File(path, "r") as file:
                zipped = "gzip" if layout == "chunked+gzip" else None
                assert file["sourceList/ra"].compression == file["catIndex/mjdobs"].compression == zipped
                assert file["timeSeries/chi"].compression == (zipped if gzip_series else None)
            (tmp_path / "plain").mkdir(exist_ok=True)
            one, two = read(path), read(write(tmp_path / "plain"))
            assert one.keys() == two.keys()
            for name in one:
                if name.startswith("timeSeries"):
                    assert all(a.tobytes() == b.tobytes() for a, b in zip(one[name], two[name], strict=True))
                else:
                    assert one[name].tobytes() == two[name].tobytes()


def test_filters_are_stored_in_three_ways(tmp_path: Path) -> None:
    for filters, kind in [("S2", "S2"), ("padded", "S4"), ("str", "O")]:
        path = write(tmp_path, filters=filters)
        with h5py.File(path, "r") as file:
            stored = file["catIndex/filter"]
            assert stored.dtype == np.dtype(kind)
            assert bool(h5py.check_string_dtype(stored.dtype).length) == (filters != "str")
            raw = stored[:].tolist()
        assert {len(one) - len(one.strip()) for one in raw} == ({1, 2} if filters == "padded" else {0})
        assert set(bands(read(path))) == set(virac.BANDS)
        assert defects(path) == set()


def test_groups_and_columns_that_may_be_absent(tmp_path: Path) -> None:
    tile = read(write(tmp_path, with_variability=False, with_z_counts=False, alternative_names=True))
    assert not tile["sourceList/has_variabilityIndices"].any()
    assert not [name for name in tile if name.startswith("variabilityIndices")]
    names = {name.split("/")[1] for name in tile if name.startswith("sourceList")}
    others = {"ks_b_ivw_mean_mag", "ks_b_ivw_err_mag", "j_b_ivw_mean_mag", "h_b_ivw_mean_mag", "ks_n_b_phot"}
    assert names == (set(SOURCES) - {"z_n_detections"}) | others


def test_a_tile_without_sources(tmp_path: Path) -> None:
    for layout in ["contiguous", "chunked+gzip"]:
        path = write(tmp_path, n_sources=0, layout=layout)
        assert defects(path) == set()
        assert extract_tile(path, tmp_path / "out") == {"sources": 0, "kept": 0, "rows": 0, "bytes": 0, "files": 0}


def test_a_tile_depends_on_its_arguments_only(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{}, {}, {"seed": 6}, {"nside": 512}]
    marks = []
    for number, more in enumerate(kinds):
        (tmp_path / str(number)).mkdir()
        marks.append(hashlib.sha256(write(tmp_path / str(number), **more).read_bytes()).hexdigest())
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3


def test_wrong_arguments_and_failures_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ({"pixel": 5}, {"nside": 2048}, {"epochs": (60, 131)}, {"n_sources": 10**6}):
        arguments: dict[str, Any] = TINY | {"nside": 1024, "pixel": TILES[1024]} | wrong
        with pytest.raises(ValueError, match=r"not in the survey|no tile of"):
            virac.write_tile(tmp_path / "tile.hdf5", **arguments)
    monkeypatch.setattr(virac, "_statistics", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_breakage_breaks_what_it_says_and_no_more(tmp_path: Path) -> None:
    for number, kind in enumerate(virac.BREAKAGES):
        layout = ["contiguous", "chunked+gzip"][number % 2]
        path = write(tmp_path, 512, layout=layout, gzip_series=True, filters="str")
        virac.BREAKAGES[kind](path)
        assert defects(path, 512) == {DEFECTS[kind]}


def test_folders_of_tiles(tmp_path: Path) -> None:
    more = {"n_sources": 5, "n_pawprints": 40, "epochs": (30, 40)}
    written = virac.write_tiles(tmp_path / "a", 30, seed=1, broken=0.7, **more)
    assert sorted(written) == sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sorted(kind for kind in written.values() if kind) == sorted([*virac.BREAKAGES, *list(virac.BREAKAGES)[:3]])
    places = [tuple(map(int, name[1:-5].split("_"))) for name in written]
    for nside in TILES:
        pixels = [pixel for n, pixel in places if n == nside]
        assert len(pixels) == 10
        assert all(virac.RANGES[nside][0] <= pixel <= virac.RANGES[nside][1] for pixel in pixels)
    assert len({int(hpgeom.ring_to_nest(n, pixel)) // (n // 256) ** 2 for n, pixel in places}) == 30
    assert virac.write_tiles(tmp_path / "b", 30, seed=1, broken=0.7, **more) == written
    for name, kind in written.items():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), kind
    assert set(virac.write_tiles(tmp_path / "c", 12, seed=2, **more).values()) == {""}


def test_the_extractor_to_compare_with(tmp_path: Path) -> None:
    path = write(tmp_path, catindexid="shuffled", filters="padded", layout="chunked+gzip", n_sources=12)
    tile, done = read(path), extract_tile(path, tmp_path / "out")
    rows, covered, band = positions(tile, "catindexid"), positions(tile, "catindexidcovered"), bands(tile)
    written = {int(file.stem): file for file in (tmp_path / "out").rglob("*.csv")}
    kept = [n for n in range(12) if sum(band[row] == "Ks" for row in rows[n]) > 20]
    assert sorted(written) == sorted(tile["sourceList/sourceid"][kept].tolist())
    assert done["sources"] == 12
    assert done["kept"] == done["files"] == len(kept) < 12
    assert done["rows"] == sum(len(covered[n]) for n in kept)
    assert done["bytes"] == sum(file.stat().st_size for file in written.values())
    for n in kept:
        name = str(tile["sourceList/sourceid"][n])
        text = (tmp_path / "out" / name[:3] / name[3:6] / f"{name}.csv").read_text()
        assert text.startswith(HEADER)
        lines = list(csv.DictReader(text.splitlines()))
        order = [*rows[n].tolist(), *(row for row in covered[n].tolist() if row not in set(rows[n].tolist()))]
        assert [line["mjd"] for line in lines] == [f"{tile['catIndex/mjdobs'][row]:.6f}" for row in order]
        assert [line["filter"] for line in lines] == [band[row] for row in order]
        for number, (line, row) in enumerate(zip(lines, order, strict=True)):
            expected = dict.fromkeys(line, "") | {"mjd": line["mjd"], "filter": band[row], "detected": "0"}
            for column, places in (("seeing", 3), ("exptime", 2), ("skylevel", 2), ("ellipticity", 4)):
                expected[column] = f"{tile[f'catIndex/{column}'][row]:.{places}f}"
            if number < len(rows[n]):
                at = {"mag": "hfad_mag", "err": "hfad_emag"}
                values = {f"{band[row].lower()}_{k}": tile[f"timeSeries/{v}"][n][number] for k, v in at.items()}
                values |= {k: tile[f"timeSeries/{k}"][n][number] for k in ("chi", "ast_res_chisq")}
                expected |= {k: "" if np.isnan(v) else f"{v:.4f}" for k, v in values.items()} | {"detected": "1"}
            assert line == expected


def test_the_extractor_adds_up_tiles_and_raises(tmp_path: Path) -> None:
    tiles = [write(tmp_path, nside, n_sources=8) for nside in TILES]
    alone = [extract_tile(path, tmp_path / "one") for path in tiles]
    both = extract_folder(tmp_path, tmp_path / "two", processes=2)
    assert both == {name: sum(done[name] for done in alone) for name in alone[0]}
    for kind, error in (
        ("unknown_filter", ValueError),
        ("unequal_lengths", ValueError),
        ("truncated", OSError),
        ("unknown_catindexid", ValueError),
        ("no_hfad_mag", KeyError),
    ):
        path = write(tmp_path, n_sources=8)
        virac.BREAKAGES[kind](path)
        with pytest.raises(error):
            extract_tile(path, tmp_path / "three")
