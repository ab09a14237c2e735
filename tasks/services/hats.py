"""Catalogues in HEALPix partitions: which partitions some targets need, and the few rows in them that matter.

HATS (https://hats.readthedocs.io) keeps a catalogue in Parquet files, one for each HEALPix pixel of an order that
varies with the density of sources; the partition of pixel n at order k is at
dataset/Norder=k/Dir=d/Npix=n.parquet with d = 10000 * (n // 10000), or a folder Npix=n of files. What is here
serves any catalogue of such partitions, however its files are named.

If a target is within reach of its pixel's edge, the neighbouring partitions are read, too. Row groups that cannot hold
anything near a target are skipped by their statistics.
"""

from __future__ import annotations

import csv
import io
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lake.errors import ArchiveError
from lake.science.sky import ARCSEC_PER_DEG, HPX_ORDER, SkyIndex, cone_ranges, hpx29, match
from tasks.services.parquet import bounds, column_names, excluded, nested_paths, pick, pick_epochs
from tasks.services.store import Store
from tasks.services.usage import counted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Allowed = Mapping[str, Sequence[int] | Ints]
_Found = list[tuple[pa.Table, pa.Table | None]]

# The index that HATS adds to every row; it may come from better positions than those of the row. Positions kept
# as float32 are off by 0.055 arcsec at most (half of 2^-15 deg at RA 360), so that pruning looks this much farther.
INDEX = "_healpix_29"
_PAD_ARCSEC = 0.2

# Partitions of one granule that are read at a time: decoding takes a core, and S3 some time until the first byte.
_AT_ONCE = 2

# Beyond that a list of partitions makes no sense: it takes a gigabyte to hold.
_MOST_PARTITIONS = 10_000_000


class Near:
    """The sky within a radius of some positions.

    Parameters
    ----------
    ra, dec
        ICRS degrees.
    radius_arcsec
        Arcseconds, one for all or one for each.
    """

    def __init__(self, ra: Floats, dec: Floats, radius_arcsec: float | Floats) -> None:
        self.ra, self.dec = np.mod(np.asarray(ra, np.float64), 360.0), np.asarray(dec, np.float64)
        self.radius_arcsec = radius_arcsec
        self._index = SkyIndex(self.ra, self.dec)
        reach = radius_arcsec + _PAD_ARCSEC
        circles = zip(*np.broadcast_arrays(self.ra, self.dec, reach), strict=True)
        ranges = [pair for lon, lat, around in circles for pair in cone_ranges(lon, lat, around)]
        self.low, self.high = _union(np.array(ranges, np.int64).reshape(-1, 2))
        reach_deg = reach / ARCSEC_PER_DEG
        self._south, self._north = self.dec - reach_deg, self.dec + reach_deg
        # Half the width in right ascension of a circle: all of it where a pole is inside.
        polar = (self._north >= 90) | (self._south <= -90)
        sine = np.sin(np.radians(reach_deg)) / np.cos(np.radians(np.where(polar, 0.0, self.dec)))
        self._width = np.where(polar, 180.0, np.degrees(np.arcsin(np.minimum(sine, 1.0))))

    def touches(self, low: int, high: int) -> bool:
        """Say whether a position within the radius could have an order-29 index of low to high."""
        place = int(np.searchsorted(self.high, low))
        return place < len(self.low) and int(self.low[place]) <= high

    def touches_box(self, ra: tuple[float, float] | None, dec: tuple[float, float] | None) -> bool:
        """Say whether a position within the radius could have coordinates from least to greatest; None is any."""
        possible = np.ones(len(self.ra), bool)
        if dec is not None:
            possible &= (self._south <= dec[1]) & (self._north >= dec[0])
        if ra is not None:
            turns = [
                (self.ra - self._width <= ra[1] + turn) & (self.ra + self._width >= ra[0] + turn)
                for turn in (-360, 0, 360)
            ]
            possible &= np.logical_or.reduce(turns)
        return bool(possible.any())

    def rows(self, ra: Floats, dec: Floats) -> Ints:
        """Return which of some positions are within the radius; those not on the sky are not."""
        on_sky = np.flatnonzero((np.abs(ra) <= 360) & (np.abs(dec) <= 90))
        pixel = hpx29(ra[on_sky], dec[on_sky])
        place = np.searchsorted(self.high, pixel)
        inside = place < len(self.low)
        inside[inside] = self.low[place[inside]] <= pixel[inside]
        candidates = on_sky[inside]
        if isinstance(self.radius_arcsec, np.ndarray):
            found, _, _ = match(ra[candidates], dec[candidates], self.ra, self.dec, self.radius_arcsec)
        else:
            found, _, _ = self._index.within(ra[candidates], dec[candidates], self.radius_arcsec)
        return np.asarray(candidates[np.unique(found)])


def _union(ranges: Ints) -> tuple[Ints, Ints]:
    """Return inclusive ranges as sorted disjoint ones."""
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    highest = np.maximum.accumulate(ranges[:, 1])
    first = np.ones(len(ranges), bool)
    first[1:] = ranges[1:, 0] > highest[:-1] + 1
    last = np.append(first[1:], True)[: len(ranges)]
    return ranges[first, 0], highest[last]


@dataclass(frozen=True)
class Catalogue:
    """A catalogue's partitions, in the order of the sky.

    Parameters
    ----------
    store
        Folder that the paths are in.
    first, last
        Order-29 indices of each partition's first and last pixel.
    paths
        Each partition's file, or its folder with a slash at the end.
    ra, dec
        Names of the columns with positions, ICRS degrees.
    """

    store: Store
    first: Ints
    last: Ints
    paths: tuple[str, ...]
    ra: str
    dec: str

    def needed(self, near: Near) -> list[int]:
        """Return the partitions that could hold rows within the radius."""
        place = np.searchsorted(near.high, self.first)
        hit = place < len(near.low)
        hit[hit] = near.low[place[hit]] <= self.last[hit]
        return [int(number) for number in np.flatnonzero(hit)]

    def covers(self, pixels: Ints) -> NDArray[np.bool_]:
        """Say of order-29 pixels whether a partition holds them."""
        place = np.searchsorted(self.first, pixels, side="right") - 1
        return np.asarray((place >= 0) & (pixels <= self.last[np.maximum(place, 0)]))

    def files(self, number: int) -> list[str]:
        """Return the files of a partition.

        Raises
        ------
        ArchiveError
            If there are none where the catalogue lists some.
        """
        path = self.paths[number]
        if not path.endswith("/"):
            return [path]
        found = [file for file in self.store.files(path) if file.endswith((".parquet", ".parq", ".pq"))]
        if not found:
            raise self.store.trouble(path, "a partition is gone", transient=True) from FileNotFoundError(path)
        return found


def partitions(store: Store, pixels: Mapping[tuple[int, int], str], ra: str, dec: str) -> Catalogue:
    """Make a catalogue of the paths of its partitions by (order, pixel).

    Raises
    ------
    ArchiveError
        If there are none, or a pixel does not exist.
    """
    if not pixels or any(not 0 <= order <= HPX_ORDER or not 0 <= n < 12 * 4**order for order, n in pixels):
        raise store.trouble("", "the list of partitions makes no sense" if pixels else "there are no partitions")
    order, pixel = np.array(list(pixels), np.int64).T
    shift = 2 * (HPX_ORDER - order)
    first = pixel << shift
    last = first + (np.int64(1) << shift) - 1
    paths = list(pixels.values())
    sorting = np.argsort(first, kind="stable")
    return Catalogue(store, first[sorting], last[sorting], tuple(paths[n] for n in sorting), ra, dec)


def read_catalogue(store: Store) -> Catalogue:
    """Read the description of a HATS catalogue, or of the primary one of a collection.

    Raises
    ------
    ArchiveError
        If there is no catalogue at that address, or not in a form that is known.
    """
    collection = _properties(store, "collection.properties")
    if collection is not None:
        if "hats_primary_table_url" not in collection:
            raise store.trouble("collection.properties", "it does not say which catalogue is the primary one")
        store = store.below(collection["hats_primary_table_url"])
    properties = _properties(store, "hats.properties") or _properties(store, "properties")
    if properties is None:
        raise store.trouble("", "there is no HATS catalogue")
    if not {"hats_col_ra", "hats_col_dec"} <= set(properties):
        raise store.trouble("hats.properties", "it does not say which columns are the positions")
    suffix = properties.get("hats_npix_suffix", ".parquet")
    paths = {
        (order, n): f"dataset/Norder={order}/Dir={10_000 * (n // 10_000)}/Npix={n}{suffix}"
        for order, n in _listed(store)
    }
    return partitions(store, paths, properties["hats_col_ra"], properties["hats_col_dec"])


def _properties(store: Store, name: str) -> dict[str, str] | None:
    """Read a file of Java properties: KEY=VALUE, with backslashes before colons."""
    content = store.read(name)
    if content is None:
        return None
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    pairs = (line.partition("=") for line in lines if line and line[0] not in "#!")
    return {key.strip(): re.sub(r"\\(.)", r"\1", value.strip()) for key, _, value in pairs}


def _listed(store: Store) -> list[tuple[int, int]]:
    content = store.read("partition_info.csv")
    if content is not None:
        if content.count(b"\n") > _MOST_PARTITIONS:
            raise store.trouble("partition_info.csv", f"it lists more than {_MOST_PARTITIONS} partitions")
        try:
            rows = csv.DictReader(io.StringIO(content.decode()), skipinitialspace=True)
            return [(int(row["Norder"]), int(row["Npix"])) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise store.trouble("partition_info.csv", f"it is damaged: {error!r}", transient=True) from error
    # Older catalogues list their partitions in the combined metadata alone.
    if "dataset/_metadata" not in store.files("dataset"):
        raise store.trouble("", "the catalogue lists its partitions neither in partition_info.csv nor in _metadata")
    with store.parquet("dataset/_metadata") as file:
        groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
        found = (re.search(r"Norder=(\d+)/(?:Dir=\d+/)?Npix=(\d+)", group.column(0).file_path) for group in groups)
        return list(dict.fromkeys((int(match[1]), int(match[2])) for match in found if match))


_KNOWN: dict[tuple[str, str, str], Catalogue] = {}
_READING = threading.Lock()


def remembered(store: Store, read: Callable[[Store], Catalogue] = read_catalogue) -> Catalogue:
    """Read a catalogue, once a process and environment; threads wait for the first to read it."""
    key = (store.archive, store.url, store.environment)
    with _READING:
        if key not in _KNOWN:
            _KNOWN[key] = store.in_time(partial(read, store))
        return _KNOWN[key]


def _forget(catalogue: Catalogue) -> None:
    """Read the list of partitions anew next time."""
    for key, known in list(_KNOWN.items()):
        if known is catalogue:
            _KNOWN.pop(key, None)


@dataclass(frozen=True)
class Scan:
    """Which rows and columns of a catalogue to read.

    Parameters
    ----------
    columns
        Columns that must be there, besides the position.
    optional
        Columns that are taken where they are.
    where
        Values that a row must have one of, by column.
    nested, fields
        Column of light curves, and the values of an epoch in it.
    by_position
        Take rows near the targets. If not, positions only tell which row groups to read: where decides.
    distinct
        Rows have ids: one that comes again, the same in every column, is dropped.
    """

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    where: Allowed | None = None
    nested: str | None = None
    fields: tuple[str, ...] = ()
    by_position: bool = True
    distinct: bool = False


def scan(catalogue: Catalogue, near: Near, wanted: Scan) -> tuple[pa.Table | None, pa.Table | None]:
    """Read the rows near some targets, each partition once.

    Partitions are read side by side; memory is bounded by a row group of each that is read, and what is found.

    Returns
    -------
    tuple
        Rows (columns ra and dec, in degrees, and those wanted), and the epochs of their light curves (column row:
        the row that an epoch belongs to; and the fields). None where there are none.

    Raises
    ------
    ArchiveError
        If a partition cannot be read, or lacks a column.
    """
    return catalogue.store.in_time(partial(_scanned, catalogue, near, wanted))


def _scanned(catalogue: Catalogue, near: Near, wanted: Scan) -> tuple[pa.Table | None, pa.Table | None]:
    tables, curves, n = [], [], 0

    def read(number: int) -> list[tuple[pa.Table, pa.Table | None]]:
        found: _Found = []
        for path in catalogue.files(number):
            with catalogue.store.parquet(path) as file:
                found += _groups(catalogue, path, file, near, wanted)
        return found

    try:
        for found in _side_by_side(read, catalogue.needed(near)):
            for rows, light in found:
                tables.append(rows)
                if light is not None:
                    curves.append(light.set_column(0, "row", pc.add(light["row"], n)))
                n += rows.num_rows
    except ArchiveError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            _forget(catalogue)  # the archive may have been cut into other partitions since
        raise
    join = {"promote_options": "permissive"}
    rows = pa.concat_tables(tables, **join) if tables else None
    light = pa.concat_tables(curves, **join) if curves else None
    return _each_once(rows, light) if rows is not None and wanted.distinct else (rows, light)


def _side_by_side(read: Callable[[int], _Found], numbers: Sequence[int]) -> Iterator[_Found]:
    """Yield what is read of partitions, in their order, a few at a time; after an error no more are begun.

    The threads are daemons, as a server that never ends its answer must not keep the process from ending.
    """
    if len(numbers) < 2:
        yield from map(read, numbers)
        return
    results: list[Future[_Found]] = [Future() for _ in numbers]
    waiting = deque(zip(results, numbers, strict=True))

    def work() -> None:
        while waiting:
            try:
                result, number = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                result.set_result(read(number))
            except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
                result.set_exception(error)

    for _ in range(min(_AT_ONCE, len(numbers))):
        Thread(target=copy_context().run, args=(counted, work), name="lightlake-partition", daemon=True).start()
    try:
        for result in results:
            yield result.result()
    finally:
        waiting.clear()


def _each_once(rows: pa.Table, curves: pa.Table | None) -> tuple[pa.Table, pa.Table | None]:
    """Return rows, and their light curves, without those that came before, the same in every column."""
    names = rows.column_names
    numbered = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    first = np.sort(numbered.group_by(names, use_threads=False).aggregate([("row", "min")])["row_min"].to_numpy())
    if len(first) == rows.num_rows:
        return rows, curves
    if curves is not None:
        row = curves["row"].to_numpy()
        kept = np.isin(row, first)
        curves = curves.filter(pa.array(kept))
        curves = curves.set_column(0, "row", pa.array(np.searchsorted(first, row[kept])))
    return rows.take(pa.array(first)), curves


def _groups(
    catalogue: Catalogue, path: str, file: pq.ParquetFile, near: Near, wanted: Scan
) -> Iterator[tuple[pa.Table, pa.Table | None]]:
    """Yield the wanted rows and epochs of each row group of a file."""
    known = column_names(file)
    names = {name: known.get(name.lower()) for name in (*wanted.columns, *(wanted.where or ()))}
    position = {"ra": known.get(catalogue.ra.lower()), "dec": known.get(catalogue.dec.lower())}
    if wanted.by_position:
        names |= position
    nested = known.get((wanted.nested or "").lower(), "")
    paths = nested_paths(file, nested, wanted.fields) if wanted.fields else []
    lacking = [name for name, real in names.items() if real is None] + (["light curves"] if paths is None else [])
    if lacking:
        raise catalogue.store.trouble(path, f"the file has no {', '.join(lacking)}")
    names |= {name: known[name.lower()] for name in wanted.optional if name.lower() in known}
    columns = {name: str(real) for name, real in names.items()}
    allowed = {name: np.unique(np.asarray(values, np.int64)) for name, values in (wanted.where or {}).items()}
    for group in range(file.num_row_groups):
        index = bounds(file, group, known.get(INDEX, ""))
        if index is not None and not near.touches(int(index[0]), int(index[1])):
            continue
        if not near.touches_box(*(bounds(file, group, real or "") for real in position.values())):
            continue
        if any(excluded(bounds(file, group, columns[name]), values) for name, values in allowed.items()):
            continue
        catalogue.store.check_group(path, file, group, [*columns.values(), *(paths or ())])
        rows, taken = pick(file, group, columns, allowed, near.rows if wanted.by_position else None)
        if len(taken):
            yield rows, pick_epochs(file, group, taken, nested, wanted.fields, paths) if paths else None
