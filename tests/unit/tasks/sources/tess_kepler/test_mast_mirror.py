"""Mirrors: the same files by id and by position, in the layout of stpubdata, in a part of it, and in any tree."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from helpers.mast import KINDS, name_of, product
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError
from lake.settings import Settings
from tasks.services.store import Store
from tasks.sources.tess_kepler import mast_bucket, mast_mirror
from tasks.sources.tess_kepler.mast_bucket import Bucket
from tasks.sources.tess_kepler.mast_files import Files, Found
from tasks.sources.tess_kepler.mast_mirror import find, nominal_cadence_s
from tasks.sources.tess_kepler.mast_products import named

TESS_SPOC = "hlsp_tess-spoc_tess_phot_0000000280773136-s0037_tess_v1_lc.fits"

# Where the public bucket has them: written out, and not made by what is tested.
HOME = {
    TESS_SPOC: "mast/hlsp/tess-spoc/s0037/target/0000/0002/8077/3136",
    "kplr002556081-2009166043257_llc.fits": "kepler/public/lightcurves/0025/002556081",
    "kplr002556081-2009259160929_llc.fits": "kepler/public/lightcurves/0025/002556081",
    "kplr002556081-2010355172524_llc.fits": "kepler/public/lightcurves/0025/002556081",
    "kplr005899262-2009131105131_llc.fits": "kepler/public/lightcurves/0058/005899262",
    "kplr010424789-2012088054726_llc.fits": "kepler/public/lightcurves/0104/010424789",
    "kplr011442793-2009350155506_llc.fits": "kepler/public/lightcurves/0114/011442793",
    "kplr011442793-2010009091648_llc.fits": "kepler/public/lightcurves/0114/011442793",
    "ktwo211436265-c05_llc.fits": "k2/public/lightcurves/c5/211400000/36000",
    "ktwo211623711-c05_llc.fits": "k2/public/lightcurves/c5/211600000/23000",
    "ktwo211719918-c05_llc.fits": "k2/public/lightcurves/c5/211700000/19000",
    "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits": "tess/public/tid/s0001/0000/0000/2515/5310",
    "tess2018206045859-s0001-0000000038846515-0120-s_lc.fits": "tess/public/tid/s0001/0000/0000/3884/6515",
}
MADE = {
    "qlp": ("mast/hlsp/qlp/s0037/0000/0000/2515/5310", 25155310, 37),
    "k2sff": ("mast/hlsp/k2sff/c05/211400000/36265", 211436265, 5),
    "everest": ("mast/hlsp/everest/v2/c05/211400000/36265", 211436265, 5),
    "k2": ("k2/public/lightcurves/c102/201400000/25000", 201425594, 102),
    "spoc": ("tess/public/tid/s0027/0000/0000/2515/5310", 25155310, 27),
}
ALL = {
    "TIC": [25155310, 38846515, 280773136],
    "KIC": [2556081, 5899262, 10424789, 11442793],
    "EPIC": [211436265, 211623711, 211719918, 201425594],
}
NOWHERE = (np.array([]), np.array([]))


@pytest.fixture
def mirror(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of a part of the bucket: the real files, and made-up ones of what there is no real one of."""
    root = tmp_path / "stpubdata"
    for name, folder in HOME.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).symlink_to(data_dir / "kepler_k2_tess" / name)
    for kind, (folder, target, sequence) in MADE.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name_of(kind, target, sequence)).write_bytes(product(kind, target=target, sequence=sequence))
    # What lies beside light curves in the bucket.
    (root / "tess/public/tid/s0001/0000/0000/2515/5310/tess2018206045859-s0001-0000000025155310-0120-s_tp.fits").touch()
    (root / "tess/public/ffi/s0001").mkdir(parents=True)
    return root


@pytest.fixture
def flat(mirror: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "flat"
    folder.mkdir()
    for path in mirror.rglob("*_l*.fits"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "README").write_text("files of mine")
    return folder


def places(*files: Path) -> tuple[np.ndarray, np.ndarray]:
    headers = [fits.getheader(path) for path in files]
    return tuple(np.array([header[key] for header in headers]) for key in ("RA_OBJ", "DEC_OBJ"))


def names(found: list[Found]) -> list[str]:
    return [one.name for one in found]


def everything(mirror: Path) -> set[str]:
    return {path.name for path in mirror.rglob("*.fits") if not path.name.endswith("_tp.fits")}


def test_all_files_are_found_by_id(mirror: Path, settings: Settings) -> None:
    found = find(str(mirror), settings, ALL, NOWHERE, 1.0)
    assert len(found) == len(HOME) + len(MADE) == 18
    assert set(names(found)) == everything(mirror)
    assert {one.name: one.uri.rsplit("/", 1)[0] for one in found if one.name in HOME} == HOME
    for one in found:
        assert one.named == named(one.name)
        assert one.size == (mirror / one.uri).stat().st_size
        assert (one.ra, one.dec) == (None, None)
    order = [(one.named.pipeline.name, one.named.target, one.named.sequence or 0) for one in found]
    assert order[:3] == [("spoc", 25155310, 1), ("spoc", 25155310, 27), ("spoc", 38846515, 1)]
    assert find(str(mirror), settings, {"TIC": [11442793], "KIC": [25155310], "EPIC": [1]}, NOWHERE, 1.0) == []
    assert find(str(mirror), settings, {}, NOWHERE, 1.0) == []


@pytest.mark.parametrize(
    ("below", "wanted", "n"),
    [
        ("..", ALL, 18),
        ("tess", ALL, 3),
        ("tess/public", ALL, 3),
        ("tess/public/tid", ALL, 3),
        ("kepler", ALL, 7),
        ("kepler/public/lightcurves", ALL, 7),
        ("k2/public", ALL, 4),
        ("mast", ALL, 4),
        ("mast/hlsp", ALL, 4),
        ("mast/hlsp/everest", ALL, 1),
        ("mast/hlsp/everest/v2", ALL, 1),
        ("tess/public/tid/s0001", ALL, 2),
        ("kepler/public/lightcurves/0114", {"KIC": [11442793]}, 2),
        ("mast/hlsp/qlp/s0037/0000", {"TIC": [25155310]}, 1),
    ],
)
def test_a_mirror_may_begin_anywhere(
    mirror: Path, settings: Settings, below: str, wanted: Mapping[str, Collection[int]], n: int
) -> None:
    found = find(f"{mirror / below}/", settings, wanted, NOWHERE, 1.0)
    assert len(found) == n
    with Files(str(mirror / below), settings) as files:
        got = list(files.fetch(found))
    assert [path.read_bytes() for _, path in got] == [(mirror / below / one.uri).read_bytes() for one in found]
    assert not settings.cache_dir.exists()


@pytest.mark.parametrize(
    ("below", "n"), [("", 18), ("..", 18), ("tess", 3), ("kepler/public/lightcurves", 7), ("mast/hlsp/everest/v2", 1)]
)
def test_where_the_layout_begins_nothing_is_searched_through(
    mirror: Path, settings: Settings, below: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bucket, "is_local", property(lambda self: False))
    monkeypatch.setattr(mast_bucket, "MOST", 0)
    assert len(find(str(mirror / below), settings, ALL, NOWHERE, 1.0)) == n


def test_only_the_folders_of_targets_are_looked_into(
    mirror: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    entries = Store.entries
    monkeypatch.setattr(Store, "entries", lambda self, folder: asked.append(folder) or entries(self, folder))
    assert len(find(str(mirror), settings, {"KIC": [11442793], "TIC": [25155310]}, NOWHERE, 1.0)) == 5
    assert sorted(set(asked)) == sorted(asked)
    inside = [folder for folder in asked if folder.startswith(("tess/public/tid/", "kepler/public/lightcurves/"))]
    assert inside == [
        "tess/public/tid/s0001/0000/0000/2515/5310",
        "tess/public/tid/s0027/0000/0000/2515/5310",
        "kepler/public/lightcurves/0114/011442793",
    ]


@pytest.mark.parametrize("layout", ["mirror", "flat"])
def test_files_are_found_by_position(
    layout: str, settings: Settings, request: pytest.FixtureRequest, data_dir: Path
) -> None:
    root = request.getfixturevalue(layout)
    real = [data_dir / "kepler_k2_tess" / name for name in HOME]
    ra, dec = places(*real)
    found = find(str(root), settings, {}, (ra, dec), 0.01)
    # Sources of more than one pipeline: what was made up of one says another position.
    assert set(HOME) <= set(names(found))
    for one in found:
        header = fits.getheader(root / one.uri)
        assert (one.ra, one.dec) == (header["RA_OBJ"], header["DEC_OBJ"])
    assert find(str(root), settings, {}, (ra, dec + 2 / 3600), 1.0) == []
    near = find(str(root), settings, {}, (ra[-1:] + 0.9 / 3600 / np.cos(np.radians(dec[-1:])), dec[-1:]), 1.0)
    assert names(near) == [list(HOME)[-1]]
    # By id and by position at once, and a position that is missing.
    both = find(str(root), settings, {"KIC": [11442793]}, (np.array([ra[-1], np.nan]), np.array([dec[-1], 0.0])), 1.0)
    assert names(both) == [list(HOME)[-1], *list(HOME)[6:8]]


def test_a_flat_folder_gives_the_same(mirror: Path, flat: Path, settings: Settings) -> None:
    theirs = find(str(flat), settings, ALL, NOWHERE, 1.0)
    assert names(theirs) == names(find(str(mirror), settings, ALL, NOWHERE, 1.0))
    assert {one.uri for one in theirs} == everything(mirror)


def test_a_tree_may_have_both_and_packed_files(mirror: Path, settings: Settings) -> None:
    (mirror / "of mine" / "old").mkdir(parents=True)
    body = product("kepler", target=757076)
    (mirror / "of mine" / "old" / f"{name_of('kepler', 757076)}.gz").write_bytes(gzip.compress(body))
    again = mirror / "of mine" / "kplr011442793-2009350155506_llc.fits"
    again.write_bytes(b"a second one")
    header = fits.Header.fromstring(body[:2880])
    for ids, at in (
        ({"KIC": [757076, 11442793]}, NOWHERE),
        ({"KIC": [11442793]}, (np.array([header["RA_OBJ"]]), np.array([header["DEC_OBJ"]]))),
    ):
        found = find(str(mirror), settings, ids, at, 1.0)
        assert [one.name for one in found] == [f"{name_of('kepler', 757076)}.gz", *list(HOME)[6:8]]
        assert found[1].uri.startswith("kepler/public")


def test_links_in_circles_end(flat: Path, settings: Settings) -> None:
    (flat / "a").mkdir()
    (flat / "a" / "up").symlink_to(flat)
    (flat / "a" / "self").symlink_to(flat / "a")
    (flat / "gone").symlink_to(flat / "nowhere")
    assert len(find(str(flat), settings, ALL, NOWHERE, 1.0)) == 18


def test_headers_are_read_once_until_a_file_changes(
    flat: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    beginning = Store.beginning
    monkeypatch.setattr(Store, "beginning", lambda self, path, size: read.append(path) or beginning(self, path, size))
    target = flat / list(HOME)[1]
    at = places(target)
    assert len(find(str(flat), settings, {}, at, 1.0)) == 3
    assert sorted(read) == sorted(everything(flat))
    read.clear()
    assert len(find(str(flat), settings, {}, at, 1.0)) == 3
    assert read == []
    os.utime(target, ns=(1, 1))
    assert len(find(str(flat), settings, {}, at, 1.0)) == 3
    assert read == [target.name]


def test_a_file_without_a_position_is_told_and_hides_no_other(
    flat: Path, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    broken = [name_of("kepler", target) for target in (1, 2, 3, 4, 5)]
    (flat / broken[0]).write_bytes(b"")
    (flat / broken[1]).write_bytes(b"<html>")
    (flat / broken[2]).write_bytes((flat / list(HOME)[1]).read_bytes()[:1000])
    (flat / broken[3]).write_bytes(gzip.compress(product("kepler"))[:20])
    (flat / broken[4]).write_bytes(product("kepler", target=5, primary={"RA_OBJ": None}))
    with caplog.at_level(logging.WARNING):
        assert len(find(str(flat), settings, {}, places(flat / list(HOME)[1]), 1.0)) == 3
    assert sorted(record.args[1] for record in caplog.records) == broken[:4]
    # By id they are found, and their reader says what is wrong.
    assert names(find(str(flat), settings, {"KIC": [1, 2, 3, 4, 5]}, NOWHERE, 1.0)) == broken


def test_a_long_header_is_read_on(flat: Path, settings: Settings) -> None:
    cards = {f"K{number}": "x" * 60 for number in range(300)}
    body = product("kepler", target=9, primary={**cards, "RA_OBJ": None, "DEC_OBJ": None})
    with fits.open(flat / list(HOME)[1]) as hdus:
        hdus[0].header.extend(fits.Header.fromstring(body[: 2880 * 9]), unique=True)
        hdus[0].header.remove("RA_OBJ")
        hdus[0].header["RA_OBJ"] = 12.5
        hdus.writeto(flat / name_of("kepler", 9))
    at = (np.array([12.5]), np.array([fits.getheader(flat / list(HOME)[1])["DEC_OBJ"]]))
    assert names(find(str(flat), settings, {}, at, 1.0)) == [name_of("kepler", 9)]


@pytest.mark.parametrize("where", ["nowhere", "flat/README"])
def test_no_folder_is_told(flat: Path, settings: Settings, where: str) -> None:
    url = str(flat.parent / where)
    for name, setting in (("lightcurves", "LIGHTCURVES"), ("mast_files", "MAST_FILES")):
        there = settings.model_copy(update={"endpoints": {name: url}})
        with pytest.raises(ArchiveError, match=rf"there is no such folder .*LIGHTLAKE_ENDPOINTS__{setting}") as caught:
            find(url, there, ALL, NOWHERE, 1.0, "lightcurves")
        assert (caught.value.archive, caught.value.endpoint) == ("lightcurves", url)


def test_far_away_a_prefix_that_is_too_large_is_refused(
    mirror: Path, flat: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were far away: on S3 each folder costs a request, and each file two."""
    monkeypatch.setattr(Bucket, "is_local", property(lambda self: False))
    at = places(flat / list(HOME)[1])
    assert len(find(str(flat), settings, {}, at, 1.0)) == 3
    assert len(find(str(mirror), settings, {}, at, 1.0)) == 3
    monkeypatch.setattr(mast_bucket, "MOST", 10)
    for root, ids, where in ((flat, {}, at), (flat, {"KIC": [2556081]}, NOWHERE), (mirror, {}, at)):
        with pytest.raises(ArchiveError, match=r"more than 10 files and folders.*TIC n, KIC n or EPIC n"):
            find(str(root), settings, ids, where, 1.0)
    assert len(find(str(mirror), settings, {"KIC": [2556081]}, NOWHERE, 1.0)) == 3


@pytest.mark.parametrize(
    ("name", "cadence_s"),
    [
        (name_of("spoc"), 120),
        ("tess2021091135823-s0037-0000000272213425-0208-a_fast-lc.fits", 20),
        (name_of("qlp", sequence=26), 1800),
        (name_of("qlp", sequence=27), 600),
        (name_of("tess_spoc", sequence=55), 600),
        (name_of("tess_spoc", sequence=56), 200),
        (name_of("kepler"), 1800),
        ("kplr011446443-2010009091648_slc.fits", 60),
        (name_of("k2"), 1800),
        (name_of("k2sff"), 1800),
        (name_of("everest"), 1800),
        ("hlsp_everest_k2_slc_211436265-c05_kepler_v2.0_lc.fits", 60),
    ],
)
def test_cadences_by_name(name: str, cadence_s: float) -> None:
    what = named(name)
    assert what is not None
    assert nominal_cadence_s(what, name) == cadence_s


URIS = {
    list(HOME)[-1]: "mast:TESS/product/{}",
    TESS_SPOC: "mast:HLSP/tess-spoc/s0037/target/0000/0002/8077/3136/{}",
    list(HOME)[6]: "mast:Kepler/url/missions/kepler/lightcurves/0114/011442793/{}",
    list(HOME)[8]: "mast:K2/url/missions/k2/lightcurves/c5/211400000/36000/{}",
    name_of("qlp", 25155310, 37): "mast:HLSP/qlp/s0037/0000/0000/2515/5310/{}",
    name_of("k2sff", 211436265, 5): "mast:HLSP/k2sff/c05/211400000/36265/{}",
    name_of("everest", 211436265, 5): "mast:HLSP/everest/v2/c05/211400000/36265/{}",
}


def of_mast(name: str) -> Found:
    what = named(name)
    assert what is not None
    return Found(URIS.get(name, "mast:TESS/product/{}").format(name), name, what)


@pytest.mark.parametrize("layout", ["mirror", "flat"])
def test_what_mast_finds_is_got_from_a_folder(
    layout: str, mirror: Path, settings: Settings, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from MAST what the folder does not have."""
    root = request.getfixturevalue(layout)
    files = [of_mast(name) for name in URIS]
    missing = of_mast(name_of("spoc", 77))
    body = product("spoc", target=77)
    served = mirror.parent / "served.fits"
    served.write_bytes(body)
    with Sandbox() as box:
        box.mount_file("/api/v0.1/Download/file", served)
        there = settings.model_copy(update={"endpoints": {"mast_files": str(root)}, "retry_delay_s": 0.0})
        with Files(box.url("/"), there) as mixed:
            got = list(mixed.fetch([*files, missing]))
        assert len(box.requests) == 1
    assert [one for one, _ in got] == [*files, missing]
    assert [path.read_bytes() for _, path in got[:-1]] == [next(mirror.rglob(name)).read_bytes() for name in URIS]
    assert got[-1][1].read_bytes() == body
    with Files(str(root), there) as alone, pytest.raises(ArchiveError, match="does not have it"):
        list(alone.fetch([missing]))


def test_files_may_be_of_another_service_than_the_search(settings: Settings, mirror: Path) -> None:
    with Sandbox() as box:
        box.mount_file("/files/api/v0.1/Download/file", mirror / HOME[list(HOME)[1]] / list(HOME)[1])
        there = settings.model_copy(update={"endpoints": {"mast_files": f"{box.url('/files')}/"}})
        with Files("http://127.0.0.1:9", there) as files:
            ((_, path),) = files.fetch([of_mast(list(HOME)[1])])
    assert path.stat().st_size == 192960


def test_a_file_that_is_gone_since_it_was_listed_is_told(flat: Path, settings: Settings) -> None:
    found = find(str(flat), settings, {"TIC": [38846515]}, NOWHERE, 1.0)
    (flat / found[0].uri).unlink()
    with Files(str(flat), settings) as files, pytest.raises(ArchiveError, match="does not have it") as caught:
        list(files.fetch(found))
    assert found[0].name in caught.value.endpoint


FILE = st.tuples(st.sampled_from(KINDS), st.integers(1, 999_999_999), st.integers(1, 99))


@given(there=st.lists(FILE, min_size=1, max_size=8, unique=True), data=st.data())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_lies_in_the_layout_is_found_and_nothing_else(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, there: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """By each of any ids, in any order, and where MAST names it: files need no content for that."""
    root = tmp_path_factory.mktemp("bucket")
    files: dict[str, tuple[str, int]] = {}
    for kind, target, sequence in there:
        name = name_of(kind, target, sequence)
        what = named(name)
        assert what is not None
        files[name] = (what.pipeline.mission.catalogue, target)
        path = root / mast_path(kind, target, sequence) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    wanted = data.draw(st.sets(st.sampled_from(sorted(set(files.values())))))
    ids = {name: {target for catalogue, target in wanted if catalogue == name} for name in ("TIC", "KIC", "EPIC")}
    found = find(str(root), settings, ids, NOWHERE, 1.0)
    assert sorted(names(found)) == sorted(name for name, source in files.items() if source in wanted)
    bucket = Bucket.at(str(root), settings, "mast")
    for one in found:
        entry = bucket.locate(one.named, one.name)
        assert entry is not None
        assert entry.path == one.uri


def mast_path(kind: str, target: int, sequence: int) -> str:
    """Return the folder in the bucket, as the facts say."""
    tic, text = f"{target:016d}", f"{target:09d}"
    quarters = f"{tic[:4]}/{tic[4:8]}/{tic[8:12]}/{tic[12:]}"
    return {
        "spoc": f"tess/public/tid/s{sequence:04d}/{quarters}",
        "tess_spoc": f"mast/hlsp/tess-spoc/s{sequence:04d}/target/{quarters}",
        "qlp": f"mast/hlsp/qlp/s{sequence:04d}/{quarters}",
        "kepler": f"kepler/public/lightcurves/{text[:4]}/{text}",
        "k2": f"k2/public/lightcurves/c{sequence}/{text[:4]}00000/{text[4:6]}000",
        "k2sff": f"mast/hlsp/k2sff/c{sequence:02d}/{text[:4]}00000/{text[4:]}",
        "everest": f"mast/hlsp/everest/v2/c{sequence:02d}/{text[:4]}00000/{text[4:]}",
    }[kind]


def test_positions_are_remembered_within_bounds() -> None:
    assert mast_mirror._position.cache_info().maxsize == 1 << 18
