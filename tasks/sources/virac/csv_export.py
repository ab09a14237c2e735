"""Write VIRAC light curves as the published CSVs: a file for each source, ``{id[:3]}/{id[3:6]}/{id}.csv``.

Names, header, precision and order of rows are those of the published light curves. Sources are queried by the thousand
and written one by one, so memory does not grow with their number. A file gets its name when it is complete; a stopped
export continues where it was.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lake.errors import ConfigurationError
from lake.names import unknown
from lake.query import Lake
from lake.science.sky import HPX_ORDER
from lake.text import counted
from tasks.sources.virac.csv_lines import HEADER, Bytes, LineFormatter

# The page that helps with errors from here.
HELP_TOPIC = "how-to/from-virac-csv"

# Most sources, and granules of these, in one query of rows; and sources listed at once. At 700 rows a source this is
# some 0.5 GB.
_SOURCES, _GRANULES, _LISTED = 2_000, 32, 100_000

# Separate pieces of the sky in one query.
_PIECES = 32

# sourceid // 10**6 is the RING pixel of nside 1024 that a source is in, or was when it was named.
_ORDER, _PER_PIXEL = 10, 1_000_000
_SHIFT = 2 * (HPX_ORDER - _ORDER)
_PIXEL = 1 << _SHIFT

# Files written at the same time: one may take milliseconds on a shared file system.
_WRITERS = 4

# An unfinished file that was not touched for this long was left by a killed export.
_STALE_S = 3600.0


@dataclass
class Written:
    """Progress of an export.

    Parameters
    ----------
    files
        Files written.
    kept
        Files that existed already, with the right number of rows.
    rows
        Rows written.
    bytes
        Bytes written.
    """

    files: int = 0
    kept: int = 0
    rows: int = 0
    bytes: int = 0


def export_virac_csv(
    lake: Lake,
    folder: Path,
    sources: Sequence[str] | None = None,
    *,
    where: str | None = None,
    release: str | None = None,
    again: bool = False,
    progress: Callable[[Written], None] | None = None,
) -> Written:
    """Write the light curves of VIRAC sources as the published CSVs.

    Parameters
    ----------
    lake
        The lake.
    folder
        Folder of the files, made if it does not exist.
    sources
        Ids of the sources; None for all that have a light curve.
    where
        SQL condition on the columns of table sources, as a further selection.
    release
        Release; None for the one in the lake, or the one that table archives names.
    again
        Replace existing files.
    progress
        Called after each few thousand sources.

    Returns
    -------
    Written
        Numbers of files, rows and bytes.

    Raises
    ------
    ConfigurationError
        If an id is unknown or has no light curve, before anything is written; or if the folder is not writable.
    """
    found = _Export(lake, folder, _release(lake, release), again)
    chosen = found.all(where) if sources is None else found.named(sources, where)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".part-*"):
            if abs(time.time() - part.stat().st_mtime) > _STALE_S:
                part.unlink(missing_ok=True)
        for some in chosen:
            found.write(some)
            if progress is not None:
                progress(found.written)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {error.filename or folder}: {error.strerror or error}",
            hint="finished files are complete; run the command again to continue",
        ) from error
    finally:
        found.close()
    return found.written


def path_of(source: str) -> Path:
    """Return the path of a source's file within the folder.

    Raises
    ------
    ConfigurationError
        If the id is no number; other names might lead out of the folder.

    Examples
    --------
    >>> path_of("12345678901234").as_posix()
    '123/456/12345678901234.csv'
    """
    if not (source.isascii() and source.isdigit()):
        raise ConfigurationError(f"{source!r} is no id of a VIRAC source", hint="check who wrote the lake")
    return Path(source[:3], source[3:6], f"{source}.csv")


def read_ids(path: Path) -> list[str]:
    """Read ids of sources from a text file, one per line.

    Raises
    ------
    ConfigurationError
        If it cannot be read, or has other content.
    """
    try:
        ids = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}", hint="give a file with one id per line") from error
    ids = [one for one in ids if one and not one.startswith("#")]
    wrong = [one for one in ids if not (one.isascii() and one.isdigit())]
    if wrong:
        raise ConfigurationError(f"{path}: {wrong[0][:60]!r} is no id of a VIRAC source", hint="give one id per line")
    return ids


def _release(lake: Lake, release: str | None) -> str:
    held = lake.sql("SELECT DISTINCT release FROM ledger WHERE archive = 'virac' AND status = 'done' ORDER BY ALL")
    releases = held["release"].to_pylist()
    if release is not None and releases:
        if release not in releases:
            raise unknown("release", release, releases, "of VIRAC")
        return release
    if len(releases) > 1:
        named = lake.sql("SELECT release FROM archives WHERE archive = 'virac'")["release"].to_pylist()
        if not named:
            raise ConfigurationError(
                f"the lake has VIRAC in releases {', '.join(releases)}", hint="add: --release NAME"
            )
        releases = named
    if not releases:
        raise ConfigurationError(
            f"the lake at {lake.storage.root} has no VIRAC light curves", hint="extract tiles first: lightlake virac"
        )
    return str(releases[0])


class _Export:
    """One export: it finds the sources and their rows, and writes the files."""

    def __init__(self, lake: Lake, folder: Path, release: str, again: bool) -> None:
        self.lake, self.folder, self.release, self.again = lake, folder, release, again
        self.written = Written()
        self._part = f".part-{uuid.uuid4().hex}"
        self._writers = ThreadPoolExecutor(_WRITERS)
        self._folders: set[Path] = set()

    def _ask(self, query: str, parameters: dict[str, Any] | None = None, **more: Any) -> pa.Table:
        return self.lake.run(query, {"release": self.release, **(parameters or {})}, **more)

    def all(self, where: str | None) -> Iterator[pa.Table]:
        """Yield all sources that have a light curve in chunks of neighbours."""
        condition = f"archive = 'virac' AND release = $release AND left_out IS NULL AND ({where or 'true'})"
        # The sky is listed in pieces: a list of all sources may not fit into memory.
        pixels = self._ask(
            f"SELECT hpx29 >> {_SHIFT} AS pixel, count(*) AS n FROM sources WHERE {condition} GROUP BY ALL ORDER BY ALL"
        )
        if not pixels.num_rows:
            return
        chunks = np.cumsum(pixels["n"].to_numpy()) // _LISTED
        for _, group in groupby(zip(chunks.tolist(), pixels["pixel"].to_pylist(), strict=True), key=lambda one: one[0]):
            within = [pixel for _, pixel in group]
            yield from _chunks(
                self._ask(
                    f"SELECT source_id, hpx29, granule FROM sources WHERE {condition} AND hpx29 BETWEEN $low AND $high",
                    {"low": within[0] << _SHIFT, "high": (within[-1] << _SHIFT) + _PIXEL - 1},
                )
            )

    def named(self, sources: Sequence[str], where: str | None) -> Iterator[pa.Table]:
        """Find sources by id and yield them in chunks of neighbours."""
        ids = sorted(set(sources), key=lambda one: (_pixel(one), one))
        found = [self._look_up(ids[n : n + _SOURCES], where) for n in range(0, len(ids), _SOURCES)]
        known = {one for table in found for one in table["source_id"].to_pylist()}
        # Some may have moved out of the pixel in their id. A search of the whole sky takes longer.
        if rest := [one for one in ids if one not in known]:
            found.append(self._look_up(rest, where, everywhere=True))
        if not found:
            return iter(())
        table = pa.concat_tables(found)
        known.update(table["source_id"].to_pylist())
        _refuse(f"unknown in release {self.release} of VIRAC", [one for one in ids if one not in known])
        for reason in pc.unique(table["left_out"].drop_null()).to_pylist():
            without = table.filter(pc.equal(table["left_out"], reason))["source_id"].to_pylist()
            _refuse(f"without a light curve in the lake, left out for {reason}", without)
        return _chunks(table.filter(table["wanted"]))

    def _look_up(self, ids: list[str], where: str | None, *, everywhere: bool = False) -> pa.Table:
        pixels29 = np.array([0] if everywhere else [_pixel(one) << _SHIFT for one in ids])
        near = "sources" if everywhere else _near("sources", pixels29, _PIXEL - 1)
        return self._ask(
            f"SELECT source_id, hpx29, granule, left_out, coalesce(({where or 'true'}), false) AS wanted "
            f"FROM {near} AS sources WHERE archive = 'virac' AND release = $release "
            "AND source_id IN (SELECT unnest($ids::VARCHAR[]))",
            {"ids": ids},
        )

    def write(self, sources: pa.Table) -> None:
        """Write the files of sources."""
        if not self.again:
            sources = self._without_file(sources)
        if not sources.num_rows:
            return
        rows, exposures = self._rows(sources)
        ids = sources["source_id"].to_pylist()
        lines = LineFormatter(rows, exposures, len(ids))
        for first, last in lines.chunks():
            text = lines.format_rows(lines.starts[first], lines.starts[last])
            bounds = (lines.starts[first : last + 1] - lines.starts[first]).tolist()
            parts = (text[begin:end] for begin, end in pairwise(bounds))
            sizes = list(self._writers.map(self._put, ids[first:last], parts))
            self.written.files += len(sizes)
            self.written.rows += len(text)
            self.written.bytes += sum(sizes)

    def _without_file(self, sources: pa.Table) -> pa.Table:
        """Return the sources without a complete file, one that has as many rows as the lake."""
        existing: dict[str, int | None] = {}
        for one in sources["source_id"].to_pylist():
            try:
                text = (self.folder / path_of(one)).read_bytes()
            except FileNotFoundError:
                continue
            whole = text.startswith(HEADER.encode()) and text.endswith(b"\n")
            existing[one] = text.count(b"\n") - 1 if whole else None
        if not existing:
            return sources
        mask = pc.is_in(sources["source_id"], value_set=pa.array(list(existing)))
        with self.lake.snapshot() as cursor:
            counted = self._ask(
                "SELECT source_id, sum(n)::BIGINT AS n "
                f"FROM {_near('statistics', _pixels29(sources))} SEMI JOIN existing USING (source_id, hpx29) "
                "WHERE archive = 'virac' AND release = $release GROUP BY ALL",
                within=cursor,
                existing=sources.filter(mask),
            )
        ids, numbers = counted["source_id"].to_pylist(), counted["n"].to_pylist()
        right = [one for one, n in zip(ids, numbers, strict=True) if existing[one] == n]
        self.written.kept += len(right)
        return sources.filter(pc.invert(pc.is_in(sources["source_id"], value_set=pa.array(right, pa.string()))))

    def _rows(self, sources: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the rows of sources, and their exposures."""
        chosen = sources.append_column("number", pa.array(np.arange(sources.num_rows)))
        with self.lake.snapshot() as cursor:
            rows = self._ask(
                "SELECT chosen.number, coalesce(rows.exposure_id, rows.band || ' ' || rows.mjd) AS exposure_id, "
                "rows.band, rows.mjd, rows.detected, rows.mag, rows.mag_err, rows.chi, rows.ast_res_chisq "
                f"FROM {_near('lightcurves', _pixels29(sources))} AS rows JOIN chosen USING (hpx29, source_id) "
                "WHERE rows.archive = 'virac' AND rows.release = $release",
                within=cursor,
                chosen=chosen,
            )
            names = rows["exposure_id"].combine_chunks().dictionary_encode()
            rows = rows.set_column(rows.column_names.index("exposure_id"), "exposure_id", names)
            needed = pa.table({"exposure_id": names.dictionary})
            # One SELECT for each tile, as in _near.
            ordered = sorted(needed["exposure_id"].to_pylist())
            tiles = [list(group) for _, group in groupby(ordered, key=lambda one: one.rpartition("/")[0])]
            near = " UNION ALL ".join(
                f"SELECT * FROM exposures WHERE exposure_id BETWEEN $low{n} AND $high{n}" for n in range(len(tiles))
            )
            bounds = {f"{end}{n}": tile[at] for n, tile in enumerate(tiles) for end, at in (("low", 0), ("high", -1))}
            exposures = needed.schema.empty_table()
            if tiles:
                exposures = self._ask(
                    "SELECT exposure_id, seeing_arcsec, exposure_s, sky_level, ellipticity "
                    f"FROM ({near}) SEMI JOIN needed USING (exposure_id) "
                    "WHERE archive = 'virac' AND release = $release",
                    bounds,
                    within=cursor,
                    needed=needed,
                )
        return rows, exposures

    def _put(self, source: str, lines: Bytes) -> int:
        """Write a file and return its size."""
        path = self.folder / path_of(source)
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        part = self.folder / f"{self._part}-{threading.get_ident()}"
        size = part.write_bytes(HEADER.encode() + lines.tobytes().translate(None, b"\0"))
        part.replace(path)
        return size

    def close(self) -> None:
        """Stop writing, and remove unfinished files."""
        self._writers.shutdown(cancel_futures=True)
        for part in self.folder.glob(f"{self._part}-*"):
            part.unlink(missing_ok=True)


def _chunks(sources: pa.Table) -> Iterator[pa.Table]:
    """Yield sources in chunks of neighbours whose rows fit into memory."""
    sources = sources.sort_by([("hpx29", "ascending"), ("source_id", "ascending")])
    start, granules = 0, set[str]()
    for number, granule in enumerate(sources["granule"].to_pylist()):
        granules.add(granule)
        if number - start == _SOURCES or len(granules) > _GRANULES:
            yield sources.slice(start, number - start)
            start, granules = number, {granule}
    if start < sources.num_rows:
        yield sources.slice(start)


def _pixels29(sources: pa.Table) -> NDArray[np.int64]:
    pixels29: NDArray[np.int64] = sources["hpx29"].to_numpy()
    return pixels29


def _near(table: str, pixels29: NDArray[np.int64], width: int = 0) -> str:
    """Return SQL for the rows of a table at HEALPix indices, and for some between these.

    It has one SELECT for each piece: DuckLake skips files for one BETWEEN, not for several joined by OR.
    """
    pixels29 = np.sort(pixels29)
    gaps = np.diff(pixels29)
    widest = np.argsort(gaps)[::-1][: _PIECES - 1]
    pieces = np.split(pixels29, np.sort(widest[gaps[widest] > _PIXEL]) + 1)
    return (
        "("
        + " UNION ALL ".join(
            f"SELECT * FROM {table} WHERE hpx29 BETWEEN {piece[0]} AND {piece[-1] + width}" for piece in pieces
        )
        + ")"
    )


def _pixel(source: str) -> int:
    """Return the nested pixel in an id, or 0."""
    ring = int(source) // _PER_PIXEL if source.isascii() and source.isdigit() else -1
    return int(hpgeom.ring_to_nest(2**_ORDER, ring)) if 0 <= ring < 12 * 4**_ORDER else 0


def _refuse(what: str, ids: list[str]) -> None:
    if ids:
        some = ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        one = f"source {some} is" if len(ids) == 1 else f"{counted(len(ids), 'source is', 'sources are')}"
        raise ConfigurationError(
            f"{one} {what}{'' if len(ids) == 1 else f': {some}'}",
            hint="see them with: lightlake sql \"SELECT source_id, left_out FROM sources WHERE archive = 'virac'\"",
        )
