"""Tiles that are no tiles: each is rejected with what is wrong, and what is the disk's fault is not."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.virac import PIXELS, best, extracted, put, put_ragged, tile

from deployments.sandbox import virac as sandbox
from lake.errors import GranuleRejected
from tasks.sources.virac import tile as virac_tile
from tasks.sources.virac.tile import BANDS, open_tile, tile_of

REASONS = {
    "truncated": r"it cannot be read: .*truncated file",
    "empty": "the file is empty",
    "not_hdf5": r"it cannot be read: .*file signature not found",
    "damaged_heap": r"it cannot be read: .*bad global heap collection signature",
    "damaged_chunk": r"it cannot be read: .*filter returned failure during read",
    "no_time_series": "timeSeries/catindexid is missing",
    "no_hfad_mag": "timeSeries/hfad_mag is missing",
    "wrong_dtype": "timeSeries/hfad_mag has no arrays of numbers, but float32",
    "wrong_rank": "timeSeries/hfad_mag is not a column",
    "unequal_lengths": r"source \d+ has (\d+) detections, but \d+ values of hfad_mag",
    "unknown_catindexid": r"catindexid \d+ is not in catIndex",
    "not_covered": r"source \d+ has a detection in a pawprint that does not cover it: catindexid \d+",
    "foreign_sourceid": r"sourceid \d+ is of a pixel outside tile n\d+_\d+",
    "duplicate_sourceid": "sourceList/sourceid has values more than once",
    "unknown_filter": "catIndex/filter 'Nb' is none of H, J, Ks, Y, Z",
    "nonfinite_position": r"source \d+ is at ra nan, dec ",
    "nonfinite_mjdobs": "catIndex/mjdobs is inf in 1 row",
    "row_count": r"timeSeries/\w+ has 15 rows, not 16",
}


def test_every_breakage_has_a_reason_here():
    assert REASONS.keys() == sandbox.BREAKAGES.keys()


@pytest.mark.parametrize("kind", sandbox.BREAKAGES)
@pytest.mark.parametrize(("nside", "layout", "ids"), [(1024, "contiguous", "rows"), (256, "chunked+gzip", "shuffled")])
def test_every_breakage_is_a_rejection_that_names_it(tmp_path, kind, nside, layout, ids):
    path = tile(tmp_path, nside, layout=layout, gzip_series=layout != "contiguous", catindexid=ids)
    sandbox.BREAKAGES[kind](path)
    with pytest.raises(GranuleRejected, match=REASONS[kind]):
        extracted(path)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.7, 0.95, 0.999])
def test_a_file_cut_anywhere_is_a_rejection(tmp_path, share):
    path = tile(tmp_path, n_sources=6)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(GranuleRejected, match="it cannot be read"):
        extracted(path)


def test_bytes_that_changed_are_a_rejection_or_go_unseen_but_nothing_else(tmp_path):
    """HDF5 has no checksums here: a value may be another, but nothing may crash, hang or pass for a failing disk."""
    path = tile(tmp_path, n_sources=5, with_variability=False)
    content, rng, rejected = path.read_bytes(), np.random.default_rng(3), 0
    for _ in range(40):
        harmed = bytearray(content)
        for at in rng.integers(8, 6000, 3):  # where most of the structure is
            harmed[at] = rng.integers(0, 256)
        path.write_bytes(harmed)
        try:
            extracted(path)
        except GranuleRejected:
            rejected += 1
    assert rejected > 5


# --- names


@pytest.mark.parametrize(
    ("name", "place"),
    [("n1024_9000000.hdf5", (1024, 9_000_000)), ("n256_511225.h5", (256, 511_225)), ("n512_0.hdf5", (512, 0))],
)
def test_names_of_tiles(name, place):
    assert tile_of(name) == place


@pytest.mark.parametrize(
    "name",
    [
        "tile.hdf5",
        "n1024_9000000.hdf5.part",
        ".n1024_9000000.hdf5",
        "n1024_9000000.fits",
        "n1024_-1.hdf5",
        "n128_5.hdf5",
        "n1024_12582912.hdf5",
        "n256_786432.hdf5",
        "n1024_09000000.hdf5",
        "n1024_٩٠٠٠٠٠٠.hdf5",
        "n1024_9000000.hdf5\n",
        "N1024_9000000.hdf5",
    ],
)
def test_other_names_are_rejected(tmp_path, name):
    with pytest.raises(GranuleRejected, match="is not the name of a tile"):
        tile_of(name)
    path = tile(tmp_path).rename(tmp_path / name)
    with pytest.raises(GranuleRejected, match="is not the name of a tile"):
        extracted(path)


@pytest.mark.parametrize("other", ["n1024_9000001.hdf5", "n512_2400001.hdf5"])
def test_a_tile_under_the_name_of_another_is_rejected(tmp_path, other):
    path = tile(tmp_path).rename(tmp_path / other)
    with pytest.raises(GranuleRejected, match=r"is of a pixel outside tile n\d+_\d+"):
        extracted(path)


def test_names_and_nside_are_those_of_the_survey(tmp_path):
    for nside in PIXELS:
        with open_tile(tile(tmp_path, nside)) as opened:
            assert (opened.nside, opened.pixel) == (nside, PIXELS[nside])
    assert set(BANDS) == set(sandbox.BANDS)


# --- what is not as it should be inside


def _set(name, place, value):
    def change(file):
        values = file[name][:]
        values[place] = value
        file[name][:] = values

    return change


def _group_as_dataset(name):
    def change(file):
        del file[name]
        file[name] = np.zeros(16)

    return change


def _link(file):
    del file["timeSeries/chi"]
    file["timeSeries/chi"] = h5py.SoftLink("/timeSeries/chi")


def _link_out(file):
    _external(file)
    file["timeSeries/away"] = h5py.ExternalLink("nowhere.hdf5", "/")
    del file["timeSeries/chi"]
    file["timeSeries/chi"] = h5py.SoftLink("away/chi")


def _link_within(file):
    file["moved"] = file["timeSeries/chi"]
    del file["timeSeries/chi"]
    file["timeSeries/again"] = h5py.SoftLink("/moved")
    file["timeSeries/chi"] = h5py.SoftLink("again")


def _group_elsewhere(file):
    del file["catIndex"]
    file["catIndex"] = h5py.ExternalLink("nowhere.hdf5", "/catIndex")


def _stored_elsewhere(file):
    del file["sourceList/ra"]
    file.create_dataset("sourceList/ra", (16,), "f8", external=[("/etc/passwd", 0, 128)])


def _virtual(file):
    del file["sourceList/ra"]
    layout = h5py.VirtualLayout((16,), "f8")
    layout[:] = h5py.VirtualSource("nowhere.hdf5", "ra", (16,))
    file.create_virtual_dataset("sourceList/ra", layout)


def _endless(file):
    del file["sourceList/ra"]
    file.create_dataset("sourceList/ra", (10**12,), "f8", chunks=(1024,), compression="gzip")


def _external(file):
    del file["timeSeries/chi"]
    file["timeSeries/chi"] = h5py.ExternalLink("nowhere.hdf5", "/chi")


def _text_series(file):
    del file["timeSeries/hfad_mag"]
    file.create_dataset("timeSeries/hfad_mag", (16,), h5py.string_dtype())


def _as(name, kind):
    return lambda file: put(file, name, file[name][:].astype(kind))


def _ragged_as(name, kind):
    return lambda file: put_ragged(file, name, file["timeSeries"][name][:], kind)


def _wide_ids(file):
    ids = file["catIndex/catindexid"][:].astype("i8")
    ids[:2] = [2**62, -(2**62)]
    put(file, "catIndex/catindexid", ids)


def _ragged_names(file):
    del file["catIndex/filename"]
    file.create_dataset("catIndex/filename", (70,), h5py.vlen_dtype("i4"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("catIndex/catindexid", 3, 4), "catIndex/catindexid has values more than once"),
        (_wide_ids, "catIndex/catindexid runs from -4611686018427387904 to 4611686018427387904"),
        (_as("catIndex/mjdobs", "f4"), "catIndex/mjdobs has the type float32"),
        (_as("catIndex/mjdobs", "i4"), "catIndex/mjdobs has the type int32"),
        (_set("catIndex/mjdobs", 3, 0.0), r"catIndex/mjdobs: 0.0 at index \d+ is not an MJD"),
        (_set("catIndex/mjdobs", 3, 35000.0), r"catIndex/mjdobs: 35000.0 at index \d+ is not an MJD"),
        (_set("catIndex/mjdobs", 3, 2456000.5), r"catIndex/mjdobs: 2456000.5 at index \d+ is not an MJD"),
        (_set("catIndex/mjdobs", [3, 4], np.nan), "catIndex/mjdobs is nan in 2 rows"),
        (_set("catIndex/filter", 3, b""), "catIndex/filter '' is none of"),
        (_set("catIndex/filter", 3, b"\xff"), "catIndex/filter '\ufffd' is none of"),
        (lambda file: put(file, "catIndex/filter", np.zeros(70, "i4")), "catIndex/filter has the type int32"),
        (lambda file: put(file, "catIndex/seeing", np.zeros(3, "f4")), "catIndex/seeing has 3 rows, not 70"),
        (_ragged_names, "catIndex/filename has the type object"),
        (_as("sourceList/sourceid", "f8"), "sourceList/sourceid has the type float64"),
        (_set("sourceList/sourceid", 3, -5), "sourceid -5 is of a pixel outside tile"),
        (_set("sourceList/dec", 3, -91.0), r"source \d+ is at ra .*, dec -91.0"),
        (_set("sourceList/ra", 3, 361.0), r"source \d+ is at 361.0+ -.*, not in its pixel"),
        (lambda file: _set("sourceList/ra", 3, file["sourceList/ra"][3] + 0.2)(file), "not in its pixel"),
        (lambda file: put(file, "sourceList/ra", h5py.Empty("f8")), "sourceList/ra is not a column"),
        (lambda file: put(file, "sourceList/uwe", np.array(["a"] * 16, "S1")), r"sourceList/uwe has the type \|S1"),
        (_group_as_dataset("catIndex"), "catIndex/catindexid is missing"),
        (_group_as_dataset("sourceList"), "sourceList/sourceid is missing"),
        (_group_as_dataset("timeSeries"), "timeSeries/catindexid is missing"),
        (_link, "timeSeries/chi is a link that leads nowhere"),
        (_external, "timeSeries/chi is a link to another file"),
        (_link_out, "away/chi is a link to another file|chi is a link to another file"),
        (_group_elsewhere, "catIndex is a link to another file, nowhere.hdf5"),
        (_stored_elsewhere, "sourceList/ra has its data in other files"),
        (_virtual, "sourceList/ra has its data in other files"),
        (_endless, "sourceList/ra: it says that it has 8,000,000 MB, and LIGHTLAKE_MAX_ANSWER_MB=512 allows less"),
        (_text_series, "timeSeries/hfad_mag has no arrays of numbers"),
        (_ragged_as("hfad_mag", ">f4"), "timeSeries/hfad_mag has arrays of >f4 in another byte order"),
        (_ragged_as("catindexid", "f8"), "timeSeries/catindexid has no arrays of whole numbers, but float64"),
        (_ragged_as("catindexidcovered", "?"), "timeSeries/catindexidcovered has no arrays of whole numbers, but bool"),
    ],
)
def test_a_tile_that_is_not_as_it_should_be_is_rejected(tmp_path, change, reason):
    with pytest.raises(GranuleRejected, match=reason):
        extracted(tile(tmp_path, change=change))


def test_a_catalogue_as_one_table_is_rejected(tmp_path):
    def table(file):
        del file["catIndex"]
        file["catIndex"] = np.zeros(70, [("catindexid", "i4"), ("mjdobs", "f8")])

    with pytest.raises(GranuleRejected, match="catIndex/catindexid is missing"):
        extracted(tile(tmp_path, change=table))


@pytest.mark.parametrize("name", ["hfad_emag", "chi", "ambiguous_match", "objtype", "y"])
def test_every_array_must_be_as_long_as_the_detections(tmp_path, name):
    def longer(file):
        n = best(file)
        values = file["timeSeries"][name][n]
        file["timeSeries"][name][n] = np.append(values, values[:1])

    with pytest.raises(GranuleRejected, match=rf"source \d+ has \d+ detections, but \d+ values of {name}"):
        extracted(tile(tmp_path, change=longer))


def test_names_of_files_may_hold_any_bytes(tmp_path):
    path = tile(tmp_path, change=lambda file: put(file, "catIndex/filename", np.array([b"v\xff2"] * 70)))
    details = extracted(path)[0]["exposures"]["details"].to_pylist()
    assert len(details) == 70
    assert "ufffd" in details[0]


def test_a_position_may_be_a_little_outside_its_pixel(tmp_path):
    """A source has moved since it was named."""

    def moved(arcsec):
        def change(file):
            ids, dec = file["sourceList/sourceid"][:], file["sourceList/dec"][:]
            north = int(np.argmax(dec))
            edge = dec[north]
            while int(virac_tile.hpgeom.angle_to_pixel(1024, file["sourceList/ra"][north], edge, nest=False)) == int(
                ids[north] // 10**6
            ):
                edge += 0.5 / 3600
            dec[north] = edge + arcsec / 3600
            file["sourceList/dec"][:] = dec

        return change

    assert extracted(tile(tmp_path, change=moved(5.0)))[0]["sources"].num_rows == 16
    with pytest.raises(GranuleRejected, match="not in its pixel"):
        extracted(tile(tmp_path, change=moved(120.0)))


# --- what is not the tile's fault


def test_a_file_that_is_gone_is_no_rejection(tmp_path):
    with pytest.raises(FileNotFoundError), open_tile(tmp_path / "n1024_9000000.hdf5"):
        pass
    (tmp_path / "n1024_9000001.hdf5").mkdir()
    with pytest.raises(OSError, match="Is a directory"), open_tile(tmp_path / "n1024_9000001.hdf5"):
        pass


class _Failing:
    """A dataset on a disk that fails."""

    def __init__(self, message):
        self.message = message

    def __getitem__(self, rows):
        raise OSError(self.message)


EIO = "Can't synchronously read data (file read failed: time = ..., errno = 5, error message = 'Input/output error')"


def test_a_disk_that_fails_at_opening_is_no_rejection(tmp_path, monkeypatch):
    path = tile(tmp_path)

    def failing(*_):
        raise OSError(EIO.replace("read data", "open file"))

    monkeypatch.setattr(virac_tile.h5py, "File", failing)
    with pytest.raises(OSError, match="Input/output error"), open_tile(path):
        pass


@pytest.mark.parametrize("number", [5, 11, 12, 24, 110, 116])
def test_a_disk_that_fails_at_reading_is_no_rejection(tmp_path, number):
    with open_tile(tile(tmp_path)) as opened:
        opened.series["chi"] = _Failing(EIO.replace("errno = 5", f"errno = {number}"))
        with pytest.raises(OSError, match="Input/output error"):
            opened.ragged("chi", slice(0, 5))


def test_a_file_that_vanishes_while_it_is_read_is_no_rejection(tmp_path):
    path = tile(tmp_path)
    with open_tile(path) as opened:
        opened.series["chi"] = _Failing("Can't synchronously read data (whatever)")
        with pytest.raises(GranuleRejected, match="whatever"):
            opened.ragged("chi", slice(0, 5))
        path.unlink()
        with pytest.raises(OSError, match="whatever"):
            opened.ragged("chi", slice(0, 5))


@pytest.mark.parametrize("error", [OSError("Could not write to S3"), OSError(28, "No space left"), KeyError("x")])
def test_errors_of_who_uses_a_tile_are_not_the_tiles(tmp_path, error):
    """A lake that cannot be written, say: S3's errors have no number."""
    with pytest.raises(type(error), match=re.escape(str(error))), open_tile(tile(tmp_path)):
        raise error


def test_a_damaged_array_of_one_source_is_noticed(tmp_path: Path):
    path = tile(tmp_path, layout="chunked+gzip", gzip_series=True)
    content = path.read_bytes()
    at = content.find(b"GCOL")
    path.write_bytes(content[:at] + bytes(16) + content[at + 16 :])
    with pytest.raises(GranuleRejected, match="it cannot be read"):
        extracted(path)


def test_links_within_a_tile_are_followed(tmp_path):
    plain, linked = (extracted(tile(folder, change=change)) for folder, change in _both(tmp_path))
    assert linked[0]["sources"].equals(plain[0]["sources"])


def _both(folder):
    for name, change in (("plain", None), ("linked", _link_within)):
        (folder / name).mkdir()
        yield folder / name, change
