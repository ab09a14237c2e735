"""Read a user's list of targets: CSV, TSV and other text, ECSV, VOTable, FITS, Parquet.

What the columns are is found in this order: the SkyCoord column of an astropy table, UCDs, and the names that
the field is used to (see `tasks.samples.columns`). Where that leaves a choice, nothing is guessed: an error
names the columns, and `ra_column`, `dec_column` and `frame` decide. In a file without a header the columns
are called ``col1``, ``col2``, ... If both options name the same column, each of its cells holds a whole
position, such as a J2000 designation.

Rows without a usable position are kept apart, with their line and the reason. Right ascension lies in
0 to 360 deg; galactic and ecliptic longitude may also be negative, down to -180. A text row is one line,
lines that begin with ``#`` are comments; below the header, one that is like a row is a bad row. Of a file with
several tables, the one that has positions is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io.fits.verify import VerifyWarning
from astropy.io.votable.exceptions import VOWarning
from astropy.utils.exceptions import AstropyUserWarning

from lake.errors import ConfigurationError
from tasks.samples.columns import Column, Position, find_frames, find_name, find_position, listing, named
from tasks.samples.frames import frames_of_rows, groups_of, same
from tasks.samples.motion import FIRST_YEAR, LAST_YEAR, epochs, proper_motion, redshifts
from tasks.samples.parts import put_together
from tasks.samples.positions import (
    Floats,
    frame_of,
    is_missing,
    like_hours,
    refuse_offsets,
    split_positions,
    to_degrees,
    to_icrs,
    to_names,
)
from tasks.samples.sheet import Sheet
from tasks.samples.sheets import read_sheets, unreadable

TARGETS = pa.schema(
    [
        ("name", pa.string()),
        ("ra", pa.float64()),  # ICRS, deg, at ref_epoch
        ("dec", pa.float64()),
        ("pm_ra", pa.float64()),  # mas/yr, with the cosine of the declination
        ("pm_dec", pa.float64()),
        ("ref_epoch", pa.float64()),  # Julian year
        ("redshift", pa.float64()),
        ("label", pa.string()),
        ("row_in_catalogue", pa.int64()),  # counts data rows from 1, bad ones too
    ]
)


@dataclass(frozen=True)
class BadRow:
    """A row that gives no target.

    Parameters
    ----------
    line
        The line in a text file, the row in a binary one; both count from 1.
    reason
        Why it gives none.
    text
        The row as the file has it.
    """

    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class Taken:
    """A column that was taken.

    Parameters
    ----------
    quantity
        What it was taken for.
    column
        Its name.
    unit, frame, epoch
        What it is taken to be in; empty where it has none.
    """

    quantity: str
    column: str
    unit: str = ""
    frame: str = ""
    epoch: str = ""


@dataclass(frozen=True)
class TargetFile:
    """What a list of targets holds.

    Parameters
    ----------
    targets
        One row per target, in the order of the file, with the columns of `TARGETS`.
    bad_rows
        The rows that give no target.
    remarks
        What was left out of the file, or is in doubt.
    taken, unused
        The columns that were taken, and the names of the others.
    """

    targets: pa.Table
    bad_rows: tuple[BadRow, ...]
    remarks: tuple[str, ...] = ()
    taken: tuple[Taken, ...] = ()
    unused: tuple[str, ...] = ()


def read_targets(
    path: str | Path,
    *,
    label_column: str | None = None,
    ra_column: str | None = None,
    dec_column: str | None = None,
    name_column: str | None = None,
    frame: str | None = None,
    epoch: float | None = None,
    format: str | None = None,
) -> TargetFile:
    """Read a list of targets.

    Parameters
    ----------
    path
        The file, compressed with gzip or not.
    label_column
        The column to take labels from.
    ra_column, dec_column
        The columns with the positions (of whatever frame), where the file leaves a choice.
    name_column
        The column with the targets' names, where the file leaves a choice.
    frame
        The frame of the positions: ``icrs``, ``fk5``, ``fk4``, ``galactic`` or another name of astropy, with
        an equinox if need be (``fk5 J1975``). By default what the file declares, or ICRS.
    epoch
        Julian year of the positions of rows for which the file says none.
    format
        ``ecsv``, ``csv``, ``tsv``, ``ascii`` (blanks between cells), ``votable``, ``fits`` or ``parquet``.
        By default the file's content and name decide.

    Returns
    -------
    TargetFile
        The targets in the order of the file, and the rows that give none.

    Raises
    ------
    ConfigurationError
        If the file can't be read or has no rows, or if it isn't clear which columns hold the positions.
    """
    path = Path(path)
    if epoch is not None and not FIRST_YEAR < epoch < LAST_YEAR:
        raise ConfigurationError(f"epoch cannot be {epoch:g}", hint="give the Julian year of the positions: 2016.0")
    asked = [c for c in (ra_column, dec_column, label_column, name_column) if c]
    with _expected_warnings():
        sheets = read_sheets(path, format=format, asked=asked)
        try:
            sheet, position = _choose(sheets, path.name, ra_column, dec_column, frame)
            columns = sheet.columns
            label = named(columns, label_column, path.name) if label_column else None
            name = named(columns, name_column, path.name) if name_column else find_name(columns)
            return _assemble(sheet, position, name, label, epoch)
        except (OSError, pa.ArrowException) as error:  # cells are read when they are needed
            raise unreadable(path.name, format or "table", error) from error


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Silence what archives get wrong in their headers; a FITS file that was cut short stays an error."""
    with warnings.catch_warnings():
        for category in (VOWarning, u.UnitsWarning, VerifyWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("error", ".*truncated.*", AstropyUserWarning)
        yield


def _choose(
    sheets: list[Sheet], where: str, ra_column: str | None, dec_column: str | None, frame: str | None
) -> tuple[Sheet, Position]:
    """Take the table that has rows and positions."""
    filled = [
        replace(sheet, columns=put_together(sheet.columns, strict=not ra_column)) for sheet in sheets if sheet.n_rows
    ]
    if not filled:
        raise ConfigurationError(f"{where} has no rows", hint="give a file with one target a row")
    if len(filled) > 1 and ra_column and dec_column:
        filled = [s for s in filled if {ra_column, dec_column} <= {c.name for c in s.columns}] or filled[:1]
    found: list[tuple[Sheet, Position | ConfigurationError]] = []
    for sheet in filled:
        try:
            position = find_position(
                sheet.columns,
                where,
                ra_column=ra_column,
                dec_column=dec_column,
                frame=frame,
                declared=sheet.frames,
                notes=sheet.notes,
            )
        except ConfigurationError as error:
            found.append((sheet, error))  # positions, but not clear which
        else:
            if position is not None:
                found.append((sheet, position))
    if len(found) == 1:
        sheet, only = found[0]
        if isinstance(only, ConfigurationError):
            raise only
        return sheet, only
    if found:
        titles = ", ".join(sheet.title for sheet, _ in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ConfigurationError(
            f"{where} has {len(found)} tables with positions: {titles}",
            hint="save the one you want in a file of its own",
        )
    what = "positions" if frame is None else f"positions in {frame}"
    header = "" if filled[0].has_header else " and no header line"
    raise ConfigurationError(
        f"{where} has no columns that are known to hold {what}{header}; it has: {_with_samples(filled[0])}",
        hint="say which ones do with ra_column and dec_column, and their frame with frame",
    )


def _with_samples(sheet: Sheet) -> str:
    if sheet.has_header:
        arrays = f"; columns of arrays: {listing(sheet.skipped)}" if sheet.skipped else ""
        return listing(c.name for c in sheet.columns) + arrays
    return ", ".join(f"{c.name} ({c.read()[0].as_py()})" for c in sheet.columns)


def _assemble(
    sheet: Sheet, position: Position, name: Column | None, label: Column | None, epoch: float | None
) -> TargetFile:
    lon_cells, lat_cells = position.lon.read(), position.lat.read()
    is_packed = position.lon is position.lat
    if is_packed:
        name = name or position.lon
        lon_cells, lat_cells = split_positions(lon_cells)
    equatorial = position.is_equatorial
    lon_name, lat_name = ("right ascension", "declination") if equatorial else ("longitude", "latitude")
    lon, reasons = to_degrees(
        lon_cells,
        what=lon_name,
        unit=None if is_packed else position.lon.declared_unit,
        hours=equatorial,
        limits=(0.0 if equatorial else -180.0, 360.0),
    )
    lat_unit = None if is_packed else position.lat.declared_unit
    lat, lat_reasons = to_degrees(lat_cells, what=lat_name, unit=lat_unit)
    for row, reason in lat_reasons.items():
        reasons[row] = f"{reasons[row]}; {reason}" if row in reasons else reason
    refuse_offsets(position.lon.name, position.lon.declared_unit, lon, lat)
    remarks = list(sheet.remarks)
    if equatorial and not position.lon.declared_unit and like_hours(lon, lat, lon_cells):
        remarks.append(
            f"all of {position.lon.name} is below 24, and taken as degrees: if it is in hours, call it RA_hours"
        )
    frames, frame_columns = _frames(sheet, position, reasons, remarks)
    for row in _two_words(sheet, name):
        reasons.setdefault(row, "its name may have two words: put quotes around it")
    reasons |= sheet.broken
    good = np.ones(sheet.n_rows, dtype=bool)
    good[list(reasons)] = False

    pm_lon, pm_lat, pm_columns = proper_motion(sheet.columns, position, lat, remarks)
    years, epoch_column = epochs(sheet.columns, position, remarks)
    redshift, redshift_column = redshifts(sheet.columns, remarks)
    if epoch is not None:
        years = np.where(np.isnan(years), epoch, years)
    moving = np.isfinite(pm_lon) & np.isfinite(pm_lat) & good
    if unknown := int((moving & np.isnan(years)).sum()):
        remarks.append(
            f"{unknown} targets have proper motion ({listing(c.name for c in pm_columns)}) and no epoch, and will be "
            "looked for where the list has them; when were they there? --epoch 2016.0 (a Julian year) says it"
        )
    ra, dec, pm_ra, pm_dec = (np.full(sheet.n_rows, np.nan) for _ in range(4))
    # A table with l and b gives pmra in right ascension all the same.
    with_frame = equatorial or bool(pm_columns and pm_columns[0].role)
    for frame, rows in groups_of(frames, position.frame):
        of = rows[good[rows]]
        none = np.full(len(of), np.nan)
        motion = (pm_lon[of], pm_lat[of]) if with_frame else (none, none)
        ra[of], dec[of], pm_ra[of], pm_dec[of] = to_icrs(lon[of], lat[of], frame, *motion)
    if not with_frame:
        pm_ra, pm_dec = pm_lon, pm_lat
    kept = pa.array(np.flatnonzero(good))

    def names(column: Column) -> pa.Array:
        texts, rounded = to_names(column.read())
        if column is name:
            texts = pc.if_else(is_missing(texts), None, texts)
        if rounded:
            remarks.append(f"numbers of column {column.name} went through a float: last digits of them are lost")
        return texts.take(kept)

    values = {
        "name": names(name) if name else None,
        "ra": pa.array(ra[good]),
        "dec": pa.array(dec[good]),
        "pm_ra": _or_null(pm_ra[good]),
        "pm_dec": _or_null(pm_dec[good]),
        "ref_epoch": _or_null(years[good]),
        "redshift": None if redshift is None else _or_null(redshift[good]),
        "label": names(label) if label else None,
        "row_in_catalogue": pa.array(np.flatnonzero(good) + 1),
    }
    arrays = [
        pa.nulls(len(kept), field.type) if values[field.name] is None else values[field.name].cast(field.type)
        for field in TARGETS
    ]
    shown = [c for c in (name, position.lon, None if is_packed else position.lat) if c]
    taken = _taken(position, name, label, frame_columns, pm_columns, epoch_column, redshift_column, epoch)
    used = {c.column for c in taken}
    unused = [c.name for c in sheet.columns if c.name not in used] + list(sheet.skipped)
    table = pa.Table.from_arrays(arrays, schema=TARGETS)
    return TargetFile(table, _bad_rows(sheet, shown, reasons), tuple(remarks), taken, tuple(unused))


def _taken(
    position: Position,
    name: Column | None,
    label: Column | None,
    frames: list[Column],
    motion: list[Column],
    epoch: Column | None,
    redshift: Column | None,
    asked: float | None,
) -> tuple[Taken, ...]:
    lon, lat = list(position.frame.get_representation_component_names())[:2]
    frame = position.frame.name + (f" {position.frame.equinox.value}" if hasattr(position.frame, "equinox") else "")
    of = f"{frame} ({position.said})" if position.said else f"{frame} (the file does not say)"
    if frames:
        of = f"{' and '.join(c.name for c in frames)} of each row, or {frame}"
    said = position.epoch if position.epoch is not None else asked
    at = "" if said is None else f"{said:g}"
    if epoch:
        at = epoch.name if asked is None else f"{epoch.name}, or {asked:g}"
    default = "deg, or hours where sexagesimal" if lon == "ra" else "deg"
    return tuple(
        Taken(quantity, column.name, column.declared_unit or assumed, frame, at)
        for quantity, column, assumed, frame, at in (
            ("name", name, "", "", ""),
            (lon, position.lon, default, of, at),
            (lat, position.lat, "deg", of, at),
            *(("frame", c, "", "", "") for c in frames),
            *((q, c, "mas/yr", "", "") for q, c in zip(("pm_ra", "pm_dec"), motion, strict=False)),
            ("ref_epoch", epoch, "yr", "", ""),
            ("redshift", redshift, "", "", ""),
            ("label", label, "", "", ""),
        )
        if column is not None
    )


def _two_words(sheet: Sheet, name: Column | None) -> list[int]:
    """Find rows like ``NGC 1 10.5 41.2`` with a cell missing: the name's number would be a right ascension, or so."""
    behind = sheet.columns[sheet.columns.index(name) + 1 :] if name in sheet.columns else ()
    if not sheet.blanks or name is None or not behind:
        return []
    text = behind[0].read()
    odd = pc.and_(
        pc.match_substring_regex(name.read(), "^[0-9]?[A-Za-z]+$"), pc.match_substring_regex(text, "^[0-9]{1,6}$")
    )
    rows = np.flatnonzero(pc.fill_null(odd, False).to_numpy(zero_copy_only=False))
    others = text.filter(pc.invert(pc.fill_null(odd, False))).drop_null()
    plain = pc.match_substring_regex(others, "[.:]")
    return rows.tolist() if len(others) and pc.all(plain).as_py() else []


def _frames(
    sheet: Sheet, position: Position, reasons: dict[int, str], remarks: list[str]
) -> tuple[list[Any], list[Column]]:
    """Get the frame of each row, None for the position's, and the columns that say so; rows in no frame are bad."""
    none: list[Any] = [None] * sheet.n_rows
    system, equinox = find_frames(sheet.columns)
    if not position.is_equatorial or (not system and not equinox):
        return none, []
    if position.said in ("asked for", "name"):
        if position.said == "name" and equinox:
            remarks.append(f"{equinox.name} is not taken: the name of {position.lon.name} says its equinox")
        return none, []
    frames, wrong = frames_of_rows(system.read() if system else None, equinox.read() if equinox else None, sheet.n_rows)
    if system and len(wrong) == sheet.n_rows and not equinox:
        return none, []  # a frame of something else
    said = [c.name for c in (system, equinox) if c]
    old = any(frame is not None and not same(frame, frame_of("icrs")) for frame in frames)
    for row, frame in enumerate(frames):
        if frame is None:
            if old and not position.said:
                wrong.setdefault(row, f"{' and '.join(said)} say nothing, and other rows are in an old frame")
            continue
        if "ra" not in frame.get_representation_component_names():
            wrong[row] = f"{' and '.join(said)} say {frame.name}, and the columns hold right ascension"
        elif position.said and not same(frame, position.frame):
            wrong[row] = f"{' and '.join(said)} say another frame than the file's {position.said}"
    for row, reason in wrong.items():
        reasons.setdefault(row, reason)
    return frames, [c for c in (system, equinox) if c]


def _or_null(values: Floats) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _bad_rows(sheet: Sheet, shown: list[Column], reasons: dict[int, str]) -> tuple[BadRow, ...]:
    if not reasons:
        return ()
    rows = sorted(reasons)
    if sheet.lines:
        return tuple(BadRow(sheet.lines[row], reasons[row], sheet.texts[row].strip("\n")) for row in rows)
    cells = [(c.name, c.read().take(pa.array(rows)).to_pylist()) for c in shown]
    texts = (", ".join(f"{name}={values[i]}" for name, values in cells) for i in range(len(rows)))
    return tuple(BadRow(row + 1, reasons[row], text) for row, text in zip(rows, texts, strict=True))
