"""Tiles of VIRAC, and ranges of its public release, as granules: find, claim, extract and commit them one at a time.

A tile is done when its rows are in the lake. If a process dies between extraction and commit, the next process that
takes the tile commits it. Several processes may work on one folder: each claims its tiles.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lake.commit.commit import Receipt, commit
from lake.commit.ledger import Attempt, Select, canonical
from lake.commit.staging import Manifest, lost, stage
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, StagingLost
from lake.query import Lake
from lake.settings import load_settings
from lake.store.memory import peak_rss_mb
from lake.store.storage import is_local, path_of, remove_folder
from lake.store.walk import files_below, shown
from tasks.services.bounds import in_time, on_disk
from tasks.services.http import failing
from tasks.services.request_counters import Log, count_requests, summarise
from tasks.sources.base import Origin
from tasks.sources.granule_status import GranuleStatus, last_status
from tasks.sources.granule_status import granule_status as status_of
from tasks.sources.virac import tap as virac_tap
from tasks.sources.virac.options import PATTERN
from tasks.sources.virac.tile import open_tile, tile_of
from tasks.sources.virac.tiles import NAME, ORIGIN, RELEASE, Extraction, Selection
from tasks.worker import OutOfTime, is_passing, untimed

if TYPE_CHECKING:
    from upath import UPath


@dataclass(frozen=True)
class TileFile:
    """A file that may be a tile.

    Parameters
    ----------
    url
        Path or s3:// address.
    name
        Path below the searched folder: tiles of the same name in two folders differ.
    bytes, version
        Size, and ETag or modification time: a changed file is another granule.
    """

    url: str
    name: str
    bytes: int
    version: str

    @property
    def origin(self) -> Origin:
        """Return the release that it is part of."""
        return ORIGIN

    @property
    def checksum(self) -> str:
        """Return a mark of the file's content."""
        return f"{self.bytes}-{self.version}"

    def granule(self, cut: Selection) -> str:
        """Return the id of its granule."""
        key = "\n".join((RELEASE, canonical(cut.as_parameters()), self.name, str(self.bytes), self.version))
        return f"{NAME}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"

    def stage(self, attempt: Attempt, cut: Selection, folder: UPath) -> Manifest:
        """Stage its content.

        Raises
        ------
        GranuleRejected
            If it is no sound tile.
        OSError
            If it cannot be read.
        """
        with _local(self) as path, open_tile(path) as opened:
            extraction = Extraction(opened, attempt.granule, cut)
            attempt = replace(attempt, status="done" if len(opened) else "empty", reason=extraction.remark)
            staged = stage(
                folder,
                attempt,
                extraction.tables(),
                ORIGIN.band_units,
                lightcurves=extraction.lightcurves(),
                afterwards=extraction.statistics,
            )
            return staged.with_details(reason=extraction.remark)


@dataclass(frozen=True)
class PublicRange:
    """A range of sourceids of the public release at ESO, both ends included."""

    low: int
    high: int

    # A typical size of a range, for the size of a task.
    bytes = 200_000_000
    origin = virac_tap.ORIGIN
    checksum = None

    @property
    def name(self) -> str:
        """Return both ends as text."""
        return f"sourceid {self.low} to {self.high}"

    @property
    def url(self) -> str:
        """Return the address of the service."""
        return load_settings().endpoints.get(NAME, self.origin.endpoint)

    def granule(self, cut: Selection) -> str:
        """Return the id of its granule."""
        return virac_tap.granule_id(self.low, self.high, cut)

    def stage(self, attempt: Attempt, cut: Selection, folder: UPath) -> Manifest:
        """Fetch it from the service and stage it.

        Raises
        ------
        ArchiveError
            If the service does not return it.
        GranuleRejected
            If the answer contradicts itself.
        """
        return virac_tap.stage_range(self.low, self.high, attempt.granule, attempt, folder, load_settings(), cut)


Piece = TileFile | PublicRange


@dataclass(frozen=True)
class Pieces:
    """Tiles or ranges to extract, and folders and files that could not be read, with the reason."""

    found: list[TileFile] | list[PublicRange]
    unreadable: tuple[str, ...] = ()


def check_place(where: str) -> None:
    """Check that a folder of tiles exists, before any work.

    Raises
    ------
    ConfigurationError
        If it does not.
    """
    if where.partition(":")[0] == "eso" or not is_local(root := path_of(where)) or root.is_dir():
        return
    raise ConfigurationError(f"there is no folder {root}", hint="give the folder of the tiles, or s3://BUCKET/PREFIX")


def parse_shard(shard: str) -> tuple[int, int]:
    """Read number and count of a shard, such as 0/96.

    Raises
    ------
    ConfigurationError
        If it is not valid.
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", shard)
    if parts is None:
        raise ConfigurationError(f"{shard!r} is no shard", hint="give its number and how many there are: 0/96")
    number, count = int(parts[1]), int(parts[2])
    if not number < count:
        raise ConfigurationError(f"there is no shard {shard}", hint=f"count from 0/{count} to {count - 1}/{count}")
    return number, count


def find_pieces(where: str, pattern: str = PATTERN) -> Pieces:
    """Find the tiles of a folder, or the ranges of the public release.

    Parameters
    ----------
    where
        Folder of tiles, or s3://BUCKET/PREFIX; or eso: and names of tiles, such as eso:n1024_9000000,n512_2652179, for
        their part of the public release.
    pattern
        Names of the tiles' files.

    Raises
    ------
    ConfigurationError
        If nothing is found, or nothing can be read.
    """
    public, _, names = where.partition(":")
    if public != "eso":
        return find_tiles(where, pattern)
    try:
        tiles = [tile_of(f"{name.strip()}.hdf5") for name in names.split(",")]
    except GranuleRejected as error:
        raise ConfigurationError(str(error), hint="such as eso:n1024_9000000,n512_2652179") from error
    return Pieces([PublicRange(low, high) for low, high in virac_tap.ranges(tiles)])


def find_tiles(folder: str, pattern: str = PATTERN) -> Pieces:
    """Return the files in and below a folder whose names fit a pattern, sorted; follow links.

    Raises
    ------
    ConfigurationError
        If the folder does not exist, or nothing in it fits.
    """
    root, troubles = path_of(folder), list[OSError]()
    check_place(folder)
    if is_local(root):
        found = [
            TileFile(str(path), shown(path.relative_to(root).as_posix()), info.st_size, str(info.st_mtime_ns))
            for path, info in files_below(root, pattern, troubles.append, follow_links=True)
        ]
    else:
        listed = root.fs.find(root.path, detail=True)
        found = [
            TileFile(f"s3://{key}", str(PurePosixPath(key).relative_to(root.path)), info["size"], info.get("ETag", ""))
            for key, info in listed.items()
            if fnmatchcase(PurePosixPath(key).name, pattern)
        ]
    unreadable = tuple(shown(f"{error.filename or folder}: {error.strerror or error}") for error in troubles)
    if not found and unreadable:
        raise ConfigurationError(
            f"no tile of {folder} can be read: {summarise(unreadable)}", hint="ask the owner for the right to read them"
        )
    if not found:
        raise ConfigurationError(f"no file of {folder} fits {pattern!r}", hint="tiles are called n1024_9000000.hdf5")
    return Pieces(sorted(found, key=lambda tile: tile.name), unreadable)


def granule_status(
    lake: Lake, tiles: Sequence[Piece], cut: Selection, *, select: Select = "pending"
) -> GranuleStatus[Piece]:
    """Return which tiles are to be extracted: see tasks.sources.granule_status."""
    releases = {tile.origin.release for tile in tiles}
    return status_of(lake, NAME, releases, {tile.granule(cut): tile for tile in tiles}, select=select)


def extract(
    lake: Lake, tile: Piece, cut: Selection, *, again: bool = False, last_try: bool = True, log: Log | None = None
) -> Receipt | None:
    """Extract and commit a tile, or commit it as failed or rejected.

    Parameters
    ----------
    again
        Extract it even if it was rejected before.
    last_try
        Commit passing errors as failed, too.
    log
        Gets a line on each retry, with the reason.

    Returns
    -------
    Receipt or None
        Of the commit; None if another process has the tile, or has just finished it.

    Raises
    ------
    ArchiveError, OSError
        If the error may pass, and this is not the last try.
    OutOfTime
        If it takes longer than a task may.
    """
    granule = tile.granule(cut)
    with lake.catalog.claim(granule) as ours:
        settled = ("done", "empty") if again else ("done", "empty", "rejected")
        if not ours or last_status(lake, NAME, [tile.origin.release], granule).get(granule) in settled:
            return None
        folder = lake.storage.staging / NAME / granule
        manifest = Manifest.read(folder) or _stage(tile, granule, cut, folder, log, last_try=last_try)
        try:
            with untimed():
                return commit(lake.catalog, manifest)
        except StagingLost:
            remove_folder(folder)  # otherwise the next try would trust the manifest again
            raise


def mark_failed(
    lake: Lake, tiles: Sequence[Piece], cut: Selection, error: BaseException, *, again: bool = False
) -> list[tuple[str | None, Receipt]]:
    """Commit tiles as failed whose worker was lost, unless they are done or staged.

    Parameters
    ----------
    again
        Also tiles that were rejected before.
    """
    settled = ("done", "empty") if again else ("done", "empty", "rejected")
    receipts: list[tuple[str | None, Receipt]] = []
    for tile in tiles:
        granule = tile.granule(cut)
        with lake.catalog.claim(granule) as ours:
            last = last_status(lake, NAME, [tile.origin.release], granule).get(granule)
            if ours and last not in settled:
                folder = lake.storage.staging / NAME / granule
                staged = None if isinstance(error, StagingLost) else Manifest.read(folder)
                with count_requests(granule, folder=folder) as done:
                    attempt = replace(_attempt(tile, granule, cut), **done.facts())
                    manifest = staged or stage(folder, lost(attempt, error), {})
                receipts.append((tile.name, commit(lake.catalog, manifest)))
    return receipts


def _stage(tile: Piece, granule: str, cut: Selection, folder: UPath, log: Log | None, *, last_try: bool) -> Manifest:
    attempt = _attempt(tile, granule, cut)
    with count_requests(granule, log, folder, again=True) as done:
        try:
            staged = tile.stage(attempt, cut, folder)
        except OutOfTime:
            remove_folder(folder)
            raise
        except (GranuleRejected, ArchiveError, OSError) as error:
            remove_folder(folder)
            if not last_try and is_passing(error):
                raise  # the counter of requests is kept for the next try
            staged = stage(folder, lost(attempt, error), {})
    return staged.with_details(seconds=done.seconds, peak_rss_mb=peak_rss_mb(), **done.facts())


@contextmanager
def _local(tile: TileFile) -> Iterator[Path]:
    """Yield the tile as a local file: HDF5 reads in many small pieces."""
    path = path_of(tile.url)
    if is_local(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="lightlake-") as folder:
        budget = on_disk(failing(NAME, tile.url, "if it is sound, allow more"))
        budget.expects(tile.bytes)
        copy = Path(folder) / path.name
        in_time(lambda: path.fs.get_file(path.path, str(copy)), budget)
        yield copy


def _attempt(tile: Piece, granule: str, cut: Selection) -> Attempt:
    return Attempt(
        NAME,
        tile.origin.release,
        granule,
        status="done",
        started_at=datetime.now(UTC),
        n_targets=0,
        seconds=0.0,
        parameters=canonical(cut.as_parameters()),
        endpoint=tile.url,
        input_checksum=tile.checksum,
    )
