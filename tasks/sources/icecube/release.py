"""Read the files of IceCube's release: events and good runs of each season, as text in columns."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from lake.commit.sound import named
from lake.errors import ArchiveError
from lake.science.sky import SkyIndex, ranks
from tasks.services.values import dated

NAME = "icecube"
BAND = "IceCube"

# Columns of events/<season>_exp.csv, as the release's readme lists them.
_EVENT_COLUMNS = ("MJD[days]", "log10(E/GeV)", "AngErr[deg]", "RA[deg]", "Dec[deg]", "Azimuth[deg]", "Zenith[deg]")

# Seasons that are read at a time.
_AT_ONCE = 2


@dataclass(frozen=True)
class Events:
    """The events of some seasons, in the order of the files, and an index over the sky.

    Parameters
    ----------
    season, printed, number
        Season and MJD as printed in the file, which identify an event: IC40-54562.37911273. A second
        event of the same season and MJD has number 2, and gets the suffix -2.
    mjd
        UTC, days; log10_energy in GeV; angular_err_deg; ra and dec in degrees (J2000, taken as ICRS: the
        frames differ by 0.02 arcsec, the positions are good to 0.2 deg at best).
    """

    season: pa.DictionaryArray
    printed: pa.StringArray
    number: NDArray[np.int32]
    mjd: NDArray[np.float64]
    log10_energy: NDArray[np.float64]
    angular_err_deg: NDArray[np.float64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    exposures: pa.Table
    remark: str | None = None
    index: SkyIndex = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", SkyIndex(self.ra, self.dec))

    def source_ids(self, rows: NDArray[np.int64]) -> pa.StringArray:
        """Return what identifies some events; of a million, few are asked for."""
        return _source_ids(self.season.take(pa.array(rows)), self.printed.take(pa.array(rows)), self.number[rows])


def read_events(files: dict[str, tuple[IO[bytes] | None, IO[bytes] | None]], endpoint: str) -> Events:
    """Read the events, and the detector's up-time, of seasons.

    Raises
    ------
    ArchiveError
        If a season's events are missing, or a file is not in the release's form.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        read = list(pool.map(lambda season: _read_season(season, *files[season], endpoint), files))
    every = pa.concat_tables([table for table, _ in read]).unify_dictionaries().combine_chunks()
    mjd, log10_energy, angular_err_deg, ra, dec = (every[name].to_numpy() for name in ("mjd", *_EVENT_COLUMNS[1:5]))
    is_sound = dated(mjd) & (angular_err_deg >= 0) & (np.abs(dec) <= 90) & (ra >= 0) & (ra <= 360)
    texts = ("season", _EVENT_COLUMNS[0], "number")
    odd = every.select(texts).filter(pa.array(~is_sound)).combine_chunks()
    ids = _source_ids(odd[0].combine_chunks(), odd[1].combine_chunks(), odd[2].to_numpy()).to_pylist()
    if ids:
        every = every.filter(pa.array(is_sound)).combine_chunks()
        mjd, log10_energy, angular_err_deg, ra, dec = (
            column[is_sound] for column in (mjd, log10_energy, angular_err_deg, ra, dec)
        )
    return Events(
        season=every["season"].combine_chunks(),
        printed=every[_EVENT_COLUMNS[0]].combine_chunks(),
        number=every["number"].to_numpy(),
        mjd=mjd,
        log10_energy=log10_energy,
        angular_err_deg=angular_err_deg,
        ra=ra,
        dec=dec,
        exposures=pa.Table.from_pylist([exposure for _, exposure in read]),
        remark=f"events without a time, a place or its error, left out: {len(ids)}{named(ids)}" if ids else None,
    )


def _read_season(
    season: str, events: IO[bytes] | None, uptime: IO[bytes] | None, endpoint: str
) -> tuple[pa.Table, dict[str, object]]:
    """Read the events of a season, and its row of table exposures."""
    if events is None:
        raise ArchiveError(
            f"the release has no events/{season}_exp.csv",
            archive=NAME,
            endpoint=endpoint,
            hint="get the whole release, or ask for fewer seasons",
        )
    table = _read_columns(events, f"events/{season}_exp.csv", _EVENT_COLUMNS, endpoint)
    printed = table[_EVENT_COLUMNS[0]].combine_chunks()
    mjd = _numbers(printed)
    first = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(printed), np.int32)), pa.array([season]))
    more = {"season": first, "mjd": mjd, "number": _numbered(printed, mjd)}
    return pa.table({**more, **{name: table[name] for name in _EVENT_COLUMNS[:5]}}), _exposure(
        season, mjd, uptime, endpoint
    )


def _numbered(printed: pa.StringArray, mjd: NDArray[np.float64]) -> NDArray[np.int32]:
    """Count the events of the same printed time from 1, in the order of the file."""
    number = np.ones(len(mjd), np.int32)
    # The same text is the same time, so that only events of one time, and those without any, need a look at the text.
    order = np.argsort(mjd, kind="stable")
    same = mjd[order[1:]] == mjd[order[:-1]]
    again = np.isnan(mjd)
    again[order[1:][same]] = again[order[:-1][same]] = True
    rows = np.flatnonzero(again)
    codes = printed.take(pa.array(rows)).dictionary_encode().indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    number[rows[order]] = ranks(codes[order])
    return number


def _source_ids(season: pa.DictionaryArray, printed: pa.StringArray, number: NDArray[np.int32]) -> pa.StringArray:
    """Return what identifies events: season and time as printed, and a number from the second of the same on."""
    ids = pc.binary_join_element_wise(season.cast(pa.string()), printed, "-")
    again = number > 1
    if not again.any():
        return ids
    numbered = pc.binary_join_element_wise(ids, pa.array(number).cast(pa.string()), "-")
    return pc.if_else(pa.array(again), numbered, ids)


def _numbers(printed: pa.StringArray) -> NDArray[np.float64]:
    """Convert text to numbers, NaN for what is none."""
    try:
        return np.asarray(printed.cast(pa.float64()))
    except pa.ArrowInvalid:
        import pandas as pd

        return pd.to_numeric(pd.Series(printed.to_pylist(), dtype=object), errors="coerce").to_numpy(float)


def _exposure(season: str, times: NDArray[np.float64], uptime: IO[bytes] | None, endpoint: str) -> dict[str, object]:
    """Return the row of table exposures for a season: its good runs, where the release lists them."""
    same = {"exposure_id": season, "band": BAND}
    if uptime is None:
        return {**same, **_ends(times, times), "details": "{}"}
    runs = _read_columns(uptime, f"uptime/{season}_exp.csv", ("MJD_start[days]", "MJD_stop[days]"), endpoint)
    start, stop = _numbers(runs[0].combine_chunks()), runs[1].to_numpy()
    known = dated(start) & dated(stop) & (stop >= start)
    return {
        **same,
        **_ends(start[known], stop[known]),
        "exposure_s": float((stop - start)[known].sum() * 86400),
        "details": json.dumps({"good_runs": int(known.sum())}),
    }


def _ends(start: NDArray[np.float64], stop: NDArray[np.float64]) -> dict[str, object]:
    start, stop = start[dated(start)], stop[dated(stop)]
    return {"mjd_start": start.min() if start.size else None, "mjd_stop": stop.max() if stop.size else None}


def _read_columns(file: IO[bytes], name: str, columns: tuple[str, ...], endpoint: str) -> pa.Table:
    """Read a file of the release: white space between columns, a header that starts with '#'.

    The first column comes as text, the others as float64, NaN for what is no number.
    """
    header = file.readline().decode(errors="replace")
    if header.lstrip("#").split() != list(columns):
        raise ArchiveError(
            f"{name} does not start with the release's header: {header.strip()[:80]!r}", archive=NAME, endpoint=endpoint
        )
    body = file.read()
    try:
        table = _read_aligned(body, columns)
        if table is None:
            table = _read_regular(body, columns)
        if table is None:
            table = _read_irregular(body, columns)
        if not table.num_rows or any(np.isnan(table[column].to_numpy()).all() for column in columns[1:]):
            raise ValueError("rows or values are missing")
    except ValueError as error:  # of which pandas' own are kinds
        raise ArchiveError(f"{name} is damaged: {error}", archive=NAME, endpoint=endpoint) from error
    return table


def _read_aligned(body: bytes, columns: tuple[str, ...]) -> pa.Table | None:
    """Read lines whose columns are all at the same places; None if some are not. The release has only such lines."""
    length = body.find(b"\n") + 1
    if not length or len(body) % length or body.count(b"\n") != len(body) // length:
        return None
    text = np.frombuffer(bytearray(body), np.uint8).reshape(-1, length)
    blank = ord(" ")
    is_blank = np.concatenate([[True], (text[:1000] == blank).all(axis=0)[:-1], [True]])
    starts, stops = np.flatnonzero(is_blank[:-1] & ~is_blank[1:]), np.flatnonzero(~is_blank[:-1] & is_blank[1:])
    # A comma before each column makes it what Arrow reads; it takes blanks around numbers, but not within them.
    if len(starts) != len(columns) or not starts[0] or (text[:, starts[0] : stops[0]] == blank).any():
        return None
    for place in (starts[0] - 1, *stops[:-1]):
        if (text[:, place] != blank).any():
            return None
        text[:, place] = ord(",")
    return _read_separated(pa.py_buffer(text), ",", ("", *columns), columns)


def _read_regular(body: bytes, columns: tuple[str, ...]) -> pa.Table | None:
    """Read lines that all have as many numbers as there are columns; None if some have not."""
    text = np.frombuffer(body, np.uint8)
    is_blank, is_end = text == ord(" "), text == ord("\n")
    # One blank between two values, none at either end of a line.
    after, before = np.append(True, (is_blank | is_end)[:-1]), np.append(is_end[1:], True)
    tidy = text[~(is_blank & (after | before))]
    table = _read_separated(pa.py_buffer(tidy), " ", columns, columns)
    return table if table is not None and pc.all(pc.greater(pc.binary_length(table[0]), 0)).as_py() else None


def _read_separated(
    text: pa.Buffer, delimiter: str, names: tuple[str, ...], columns: tuple[str, ...]
) -> pa.Table | None:
    types = {column: (pa.string() if column == columns[0] else pa.float64()) for column in columns}
    try:
        return csv.read_csv(
            pa.BufferReader(text),
            csv.ReadOptions(column_names=list(names), use_threads=False),
            csv.ParseOptions(delimiter=delimiter, quote_char=False),
            csv.ConvertOptions(column_types=types, null_values=[], include_columns=list(columns)),
        )
    except pa.ArrowInvalid:
        return None


def _read_irregular(body: bytes, columns: tuple[str, ...]) -> pa.Table:
    """Read all as text, which takes longer: a line that is cut short lacks its last values, an odd value is no damage.

    Raises
    ------
    ValueError
        If values are missing.
    """
    import pandas as pd

    frame = pd.read_csv(
        io.BytesIO(body),
        sep=r"\s+",
        header=None,
        names=list(columns),
        index_col=False,
        dtype=str,
        keep_default_na=False,
    )
    if (frame.isna() | (frame == "")).any(axis=None):
        raise ValueError("rows or values are missing")
    numbers = {column: pd.to_numeric(frame[column], errors="coerce").to_numpy(float) for column in columns[1:]}
    return pa.table({columns[0]: pa.array(frame[columns[0]], pa.string()), **numbers})
