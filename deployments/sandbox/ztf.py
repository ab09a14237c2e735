"""Stand-in for ZTF's light curves: a HATS collection as IRSA publishes it, and the writer of HATS catalogues.

A row is an objectid, which is a star in one field, readout channel and filter, with its light curve nested in it. The
values depend on the seed and the arguments only. A light curve is made when its row group is written, so memory holds
no more than a row group, and 100 bytes or so for each row of the catalogue.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deployments.sandbox.gaia import _mix as mix
from deployments.sandbox.gaia import _normal as normal
from deployments.sandbox.gaia import _uniform as uniform
from deployments.sandbox.heasarc import offset

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Targets = Sequence[tuple[float, float]]

CATALOG = "ztf_dr24_lc-hats"
MARGIN = "ztf_dr24_lc-hats_margin_10arcs"
MARGIN_ARCSEC = 10.0
FIELD_STARS = 20_000
"""Stars away from targets at scale 1, with two or three objectids each. The real archive has some 10^9."""

_STEP, _64_BITS = 0x9E3779B97F4A7C15, 0xFFFFFFFFFFFFFFFF
_MAGS = (13.5, 14.5, 15.5, 16.5, 17.5, 18.5, 19.5, 20.5, 21.5)  # as in a file of DR5, with the error of each
_ERRORS = (0.0178, 0.0163, 0.0164, 0.0208, 0.0369, 0.0755, 0.1379, 0.1933, 0.2214)
_SUBCOLUMNS = {
    "hmjd": pa.float64(),
    "mag": pa.float32(),
    "magerr": pa.float32(),
    "clrcoeff": pa.float32(),
    "catflags": pa.int32(),
}
_CLEAN = 0.92
# What flags there are where there are any, and how often: of those, nearly all are bit 15 alone in a file of DR5.
_FLAGS, _HOW_OFTEN = (32768, 32769, 65535, 256, 16, 1, 4, 516), (0.6, 0.66, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Write the collection under `root` unless it is there, and return its folder."""
    folder = root / "ztf"
    # Raise "format" when what is written changes, so that cached collections are made anew.
    key = {"format": 1, "seed": seed, "scale": float(scale), "targets": np.array(targets, dtype=float).tolist()}
    n_field = round(FIELD_STARS * scale)
    rows = max(50, n_field // 16)
    sandbox.cached(
        folder / "collection.properties",
        key,
        lambda: write_collection(folder, targets, seed=seed, n_field=n_field, max_rows=rows),
    )
    return str(folder)


def write_collection(
    folder: Path,
    targets: Targets,
    *,
    seed: int,
    n_field: int,
    max_rows: int = 5_000,
    row_group: int = 500,
    orders: tuple[int, int] = (1, 9),
    nesting: str = "struct",
    positions: str = "float64",
    npix_suffix: str = ".parquet",
) -> None:
    """Write the collection: the catalogue, its margin of 10 arcsec beside it, ``collection.properties`` last.

    Parameters
    ----------
    folder
        The collection's folder. What is in it is removed.
    targets
        Positions (right ascension, declination, deg). Each has an objectid in g and in r within 0.5 arcsec, some have
        one in i, and some a second one of the same filter from an overlapping field, up to 0.8 arcsec off.
    seed
        Seed of everything random.
    n_field
        Number of stars away from targets, with two or three objectids each; a part of them is in a dense cluster.
    max_rows
        Rows that a partition may have; a pixel with more is split in four, unless it is of the highest order.
    row_group
        Rows of a row group.
    orders
        Lowest and highest HEALPix order of a partition.
    nesting
        How light curves are stored: "struct" of lists, as in the published catalogue, or "list" of structs.
    positions
        Type of ``objra`` and ``objdec``. In files of IRSA they are "float32", which is good to 0.06 arcsec.
    npix_suffix
        ".parquet", or "/" for partitions that are folders with one file in them, as IRSA's are.
    """
    stars = _Stars(targets, seed, n_field, nesting, np.dtype(positions))
    shutil.rmtree(folder, ignore_errors=True)
    write_catalog(
        folder / CATALOG,
        stars.ra,
        stars.dec,
        stars.rows,
        ra_column="objra",
        dec_column="objdec",
        margin=folder / MARGIN,
        max_rows=max_rows,
        row_group=row_group,
        orders=orders,
        npix_suffix=npix_suffix,
        compression="snappy",
    )
    _write_properties(
        folder / "collection.properties",
        "HATS Collection",
        obs_collection="ztf_dr24_lc",
        hats_primary_table_url=CATALOG,
        all_margins=MARGIN,
        default_margin=MARGIN,
    )


class _Stars:
    """Rows of the catalogue, by number: positions at once, light curves when asked for."""

    def __init__(self, targets: Targets, seed: int, n_field: int, nesting: str, position: np.dtype[Any]) -> None:
        if nesting not in {"struct", "list"}:
            raise ValueError(f"nesting must be 'struct' or 'list', not {nesting!r}")
        self.nesting = nesting
        places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
        sky = np.concatenate([places, field_positions(n_field, seed, south=-31.0)])
        star = keys(np.arange(len(sky)), seed)
        at_target = np.arange(len(sky)) < len(places)
        # Filter, which of two overlapping fields, and which stars have such a row: g and r always at a target.
        parts = [
            (1, 0, at_target | (uniform(star, 1) < 0.9)),
            (2, 0, at_target | (uniform(star, 2) < 0.95)),
            (3, 0, uniform(star, 3) < 0.3),
            (1, 1, uniform(star, 4) < 0.25),
            (2, 1, uniform(star, 5) < 0.25),
        ]
        of = np.concatenate([np.nonzero(there)[0] for _, _, there in parts])
        counts = [int(there.sum()) for _, _, there in parts]
        self.filter = np.repeat([one for one, _, _ in parts], counts).astype(np.int8)
        second = np.repeat([one for _, one, _ in parts], counts).astype(bool)
        self.star = star[of]
        key = mix(self.star + np.uint64(16) * second.astype(np.uint64) + self.filter.astype(np.uint64))
        off = np.where(second, 0.15 + 0.6 * uniform(key, 1), 0.42 * np.sqrt(uniform(key, 1))) / 3600
        ra, dec = offset(sky[of], off, 360 * uniform(key, 2))
        self.ra, self.dec = ra.astype(position), dec.astype(position)
        place = hpgeom.angle_to_pixel(8, ra, dec).astype(np.int64)
        self.field = np.where(second, 1100, 200) + place
        chip = keys(hpgeom.angle_to_pixel(64, ra, dec) + np.where(second, 10**6, 0), seed)
        self.rcid = (64 * uniform(chip, 1)).astype(np.int64)
        ccd, quadrant = self.rcid // 4 + 1, self.rcid % 4 + 1
        number = ((self.field * 10 + self.filter) * 100 + ccd) * 10 + quadrant
        self.objectid = number * 10**8 + of
        few = np.where(self.filter == 3, 0.2, 1.0)
        self.epochs = (few * (200 + 201 * uniform(key, 3))).astype(np.int64)
        self.key = key

    def rows(self, which: Ints) -> pa.Table:
        count = self.epochs[which]
        columns = {
            "objectid": self.objectid[which],
            "filterid": self.filter[which],
            "fieldid": self.field[which].astype("i2"),
            "rcid": self.rcid[which].astype("i1"),
            "objra": self.ra[which],
            "objdec": self.dec[which],
            "nepochs": count,
        }
        return pa.table({**columns, "lightcurve": self._light_curves(which, count)})

    def _light_curves(self, which: Ints, count: Ints) -> pa.Array:
        of, number = expand(count)
        key = mix(self.key[which][of] + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP))
        hmjd = np.round(58_194.1 + 2_480 * (number + 0.9 * uniform(key, 1)) / count[of], 5)
        star, band = self.star[which], self.filter[which]
        colour = (0.2 + uniform(star, 12)) * np.choose(band - 1, [0.0, -1.0, -1.4])
        bright, swing = 15 + 5.5 * uniform(star, 10) + colour, 0.02 + 0.3 * uniform(star, 11) ** 2
        phase = hmjd / (0.3 * 1000 ** uniform(star, 13))[of] + uniform(star, 14)[of]
        true = bright[of] + swing[of] * np.sin(2 * np.pi * phase)
        error = np.interp(true, _MAGS, _ERRORS) * (0.9 + 0.2 * uniform(key, 2))
        what = uniform(key, 3)
        kind = np.searchsorted(_HOW_OFTEN, (what - _CLEAN) / (1 - _CLEAN), side="right").clip(max=len(_FLAGS) - 1)
        flags = np.where(what < _CLEAN, 0, np.array(_FLAGS)[kind])
        values = {
            "hmjd": hmjd,
            "mag": true + error * normal(key, 4) * np.where(flags < 32768, 1, 6),
            "magerr": error,
            "clrcoeff": np.choose(band - 1, [-0.045, 0.12, 0.0])[of] + 0.015 * normal(key, 6),
            "catflags": flags,
        }
        arrays = [pa.array(values[name].astype(kind.to_pandas_dtype())) for name, kind in _SUBCOLUMNS.items()]
        offsets = pa.array(np.concatenate(([0], np.cumsum(count))).astype(np.int32))
        names = list(_SUBCOLUMNS)
        if self.nesting == "list":
            return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, names))
        return pa.StructArray.from_arrays([pa.ListArray.from_arrays(offsets, array) for array in arrays], names)


def keys(numbers: Ints, seed: int) -> Keys:
    """Keys of anything numbered, for `mix`, `uniform` and `normal`."""
    return mix(numbers.astype(np.uint64) + np.uint64(seed * _STEP & _64_BITS))


def expand(counts: Ints) -> tuple[Ints, Ints]:
    """Owner, and number within it, of each of the things of which every owner has so many."""
    of = np.repeat(np.arange(len(counts)), counts)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)


def field_positions(n: int, seed: int, *, south: float = -90.0) -> Floats:
    """Right ascensions and declinations north of `south`: most over the sky, a fifth in a cluster of a degree."""
    key = keys(np.arange(n), seed ^ 0x5EED)
    ra, low = 360 * uniform(key, 1), np.sin(np.radians(south))
    dec = np.degrees(np.arcsin(low + (1 - low) * uniform(key, 2)))
    cluster = np.tile([[130.1, 19.67]], (n, 1))
    close_ra, close_dec = offset(cluster, 1.0 * uniform(key, 4), 360 * uniform(key, 5))
    return np.column_stack(
        [np.where(uniform(key, 3) < 0.2, pair, sky) for pair, sky in ((close_ra, ra), (close_dec, dec))]
    )


class _Partition(NamedTuple):
    order: int
    pixel: int
    rows: slice

    def path(self, suffix: str) -> str:
        leaf = "/part0.snappy.parquet" if suffix == "/" else suffix
        return f"Norder={self.order}/Dir={self.pixel // 10_000 * 10_000}/Npix={self.pixel}{leaf}"


def write_catalog(
    folder: Path,
    ra: NDArray[np.floating[Any]],
    dec: NDArray[np.floating[Any]],
    rows: Callable[[Ints], pa.Table],
    *,
    ra_column: str,
    dec_column: str,
    margin: Path,
    max_rows: int,
    row_group: int,
    orders: tuple[int, int],
    npix_suffix: str = ".parquet",
    compression: str = "zstd",
    catalog_type: str = "object",
) -> None:
    """Write a HATS catalogue and its margin catalogue, row group by row group.

    Parameters
    ----------
    folder, margin
        Folders of the two.
    ra, dec
        Position of every row in degrees, as it will be stored.
    rows
        Makes the rows of some numbers, in their order and without ``_healpix_29``, which comes to be the first column.
    ra_column, dec_column, catalog_type
        What ``hats.properties`` says of it.
    max_rows, row_group, orders, npix_suffix
        See `write_collection`.
    compression
        Codec of the Parquet files.
    """
    spot = hpgeom.angle_to_pixel(2**29, ra.astype(np.float64), dec.astype(np.float64)).astype(np.int64)
    order = np.argsort(spot, kind="stable")
    spot = spot[order]
    partitions = list(_split(spot, orders, max_rows))

    def make(which: Ints) -> pa.Table:
        return rows(order[which]).add_column(0, "_healpix_29", pa.array(spot[which]))

    everything = [(one, np.arange(one.rows.start, one.rows.stop)) for one in partitions]
    beside = _margin_rows(partitions, ra[order].astype(np.float64), dec[order].astype(np.float64))
    common = {"hats_col_ra": ra_column, "hats_col_dec": dec_column, "hats_npix_suffix": npix_suffix}
    edges = {"hats_primary_table_url": folder.name, "hats_margin_threshold": MARGIN_ARCSEC}
    for place, content, more in (
        (margin, beside, {"dataproduct_type": "margin", **common, **edges}),
        (folder, everything, {"dataproduct_type": catalog_type, **common, "hats_max_rows": max_rows}),
    ):
        files = ((one.path(npix_suffix), which) for one, which in content)
        size = write_dataset(place / "dataset", files, make, row_group=row_group, compression=compression)
        lines = [f"{one.order},{one.pixel}\n" for one, _ in content]
        (place / "partition_info.csv").write_text("Norder,Npix\n" + "".join(lines))
        covered = sum(4.0**-one.order / 12 for one, _ in content)
        _write_properties(
            place / "hats.properties",
            "HATS catalog",
            obs_collection=place.name,
            **more,
            hats_nrows=sum(len(which) for _, which in content),
            hats_col_healpix="_healpix_29",
            hats_col_healpix_order=29,
            hats_estsize=size // 1024,
            hats_order=max((one.order for one, _ in content), default=0),
            moc_sky_fraction=round(covered, 5),
        )


def write_dataset(
    folder: Path,
    files: Iterable[tuple[str, Ints]],
    make: Callable[[Ints], pa.Table],
    *,
    row_group: int,
    compression: str,
) -> int:
    """Write Parquet files of these rows, then ``_common_metadata`` and ``_metadata``; return the bytes written."""
    schema, size, summary = make(np.arange(0)).schema, 0, None
    folder.mkdir(parents=True)
    for path, which in files:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(file, schema, compression=compression) as writer:
            for start in range(0, len(which), row_group):
                writer.write_table(make(which[start : start + row_group]), row_group)
        footer = pq.read_metadata(file)
        footer.set_file_path(path)
        # One by one: a footer by itself holds the schema too, which adds up.
        summary = footer if summary is None else summary
        if summary is not footer:
            summary.append_row_groups(footer)
        size += file.stat().st_size
    pq.write_metadata(schema, folder / "_common_metadata")
    if summary is None:
        pq.write_metadata(schema, folder / "_metadata")
    else:
        summary.write_metadata_file(folder / "_metadata")
    return size


def _split(spot: Ints, orders: tuple[int, int], max_rows: int) -> Iterator[_Partition]:
    """Pixels that have rows, in the order of the sky, each split in four until it has few enough."""
    lowest, highest = orders
    todo = [(lowest, pixel) for pixel in reversed(range(12 * 4**lowest))]
    while todo:
        order, pixel = todo.pop()
        shift = 2 * (29 - order)
        first, last = np.searchsorted(spot, [pixel << shift, (pixel + 1) << shift])
        if first == last:
            continue
        if last - first > max_rows and order < highest:
            todo += [(order + 1, 4 * pixel + quarter) for quarter in (3, 2, 1, 0)]
        else:
            yield _Partition(order, pixel, slice(int(first), int(last)))


def _margin_rows(partitions: Sequence[_Partition], ra: Floats, dec: Floats) -> list[tuple[_Partition, Ints]]:
    """Rows of other partitions within the margin of each partition that has such rows."""
    starts, ends = (
        np.array([(one.pixel + after) << 2 * (29 - one.order) for one in partitions], dtype=np.int64)
        for after in (0, 1)
    )
    own = np.repeat(np.arange(len(partitions)), [one.rows.stop - one.rows.start for one in partitions])
    # A pixel whose tip is 10 arcsec away is wide enough 20 arcsec away to hold one of 24 points there.
    pairs = set[tuple[int, int]]()
    for bearing in range(0, 360, 15) if partitions else ():
        around = offset(
            np.column_stack([ra, dec]), np.full(len(ra), 2 * MARGIN_ARCSEC / 3600), np.full(len(ra), bearing)
        )
        there = hpgeom.angle_to_pixel(2**29, *around)
        other = np.searchsorted(starts, there, side="right") - 1
        close = np.nonzero((other != own) & (other >= 0) & (there < ends[other]))[0]
        pairs.update(zip(other[close].tolist(), close.tolist(), strict=True))
    found: dict[int, list[int]] = {}
    for number, row in sorted(pairs):
        if _distance_arcsec(partitions[number], ra[row], dec[row]) <= MARGIN_ARCSEC:
            found.setdefault(number, []).append(row)
    return [(partitions[number], np.array(rows)) for number, rows in found.items()]


def _distance_arcsec(one: _Partition, ra: float, dec: float) -> float:
    """Distance of a place outside a partition to its edge, which is taken as straight for a minute of arc."""
    edge_ra, edge_dec = hpgeom.boundaries(2**one.order, one.pixel, step=max(4, 4000 >> one.order))
    turn, d, e = np.radians(edge_ra - ra), np.radians(dec), np.radians(edge_dec)
    # As seen from above the place, and far away what is on the other side of the sky.
    x, y = np.cos(e) * np.sin(turn), np.sin(e) * np.cos(d) - np.cos(e) * np.sin(d) * np.cos(turn)
    behind = np.sin(e) * np.sin(d) + np.cos(e) * np.cos(d) * np.cos(turn) < 0
    line = np.degrees(np.column_stack([np.where(behind, 2.0, x), np.where(behind, 2.0, y)])) * 3600
    step = np.roll(line, -1, axis=0) - line
    part = np.clip(-(line * step).sum(1) / np.maximum((step**2).sum(1), 1e-12), 0, 1)
    return float(np.hypot(*(line + part[:, None] * step).T).min())


def _write_properties(file: Path, title: str, **values: object) -> None:
    stamp = {"hats_builder": "Lightlake sandbox", "hats_creation_date": r"2026-05-20T00\:00UTC", "hats_version": "v1.0"}
    text = "".join(f"{name}={value}\n" for name, value in {**values, **stamp}.items())
    file.write_text(f"#{title}\n{text}")
