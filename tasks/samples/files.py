"""Read a user's list of targets: CSV, TSV and other text, ECSV, VOTable, FITS, Parquet.

What the columns are is found in this order: the SkyCoord column of an astropy table, UCDs, and the names that
the field is used to (see `tasks.samples.columns`). Where that leaves a choice, nothing is guessed: an error
names the columns, and `ra_column`, `dec_column` and `frame` decide. In a file without a header the columns
are called ``col1``, ``col2``, ... If both options name the same column, each of its cells holds a whole
position, such as a J2000 designation.

Rows without a usable position are kept apart, with their line and the reason. Right ascension lies in
0 to 360 deg; galactic and ecliptic longitude may also be negative, down to -180. A text row is one line,
lines that begin with ``#`` are comments. Of a file with several tables, the one that has positions is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from astropy.io.fits.verify import VerifyWarning
from astropy.io.votable.exceptions import VOWarning
from astropy.utils.exceptions import AstropyUserWarning

from lake.errors import ConfigurationError
from tasks.samples.columns import (
    Column,
    Position,
    find_epoch,
    find_name,
    find_position,
    find_proper_motion,
    find_redshift,
    listing,
    named,
)
from tasks.samples.positions import Floats, split_positions, to_degrees, to_icrs, to_numbers, to_text, unit_of
from tasks.samples.sheets import Sheet, read_sheets

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
_LONGEST_TEXT = 200


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
class TargetFile:
    """What a list of targets holds.

    Parameters
    ----------
    targets
        One row per target, in the order of the file, with the columns of `TARGETS`.
    bad_rows
        The rows that give no target.
    """

    targets: pa.Table
    bad_rows: tuple[BadRow, ...]


def read_targets(
    path: str | Path,
    *,
    label_column: str | None = None,
    ra_column: str | None = None,
    dec_column: str | None = None,
    name_column: str | None = None,
    frame: str | None = None,
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
    asked = [c for c in (ra_column, dec_column, label_column, name_column) if c]
    with _expected_warnings():
        sheets = read_sheets(path, format=format, asked=asked)
        sheet, position = _choose(sheets, path.name, ra_column, dec_column, frame)
        columns = sheet.columns
        label = named(columns, label_column, path.name) if label_column else None
        name = named(columns, name_column, path.name) if name_column else find_name(columns)
        return _assemble(sheet, position, name, label)


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
    filled = [sheet for sheet in sheets if sheet.n_rows]
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
        return listing(sheet.columns)
    return ", ".join(f"{c.name} ({c.read()[0].as_py()})" for c in sheet.columns)


def _assemble(sheet: Sheet, position: Position, name: Column | None, label: Column | None) -> TargetFile:
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
    reasons |= sheet.broken
    good = np.ones(sheet.n_rows, dtype=bool)
    good[list(reasons)] = False

    pm_lon, pm_lat, moves_with_frame = _proper_motion(sheet, position, good)
    if moves_with_frame:
        ra, dec, pm_ra, pm_dec = to_icrs(lon[good], lat[good], position.frame, pm_lon, pm_lat)
    else:
        none = np.full(pm_lon.shape, np.nan)
        ra, dec, _, _ = to_icrs(lon[good], lat[good], position.frame, none, none)
        pm_ra, pm_dec = pm_lon, pm_lat
    kept = pa.array(np.flatnonzero(good))
    values = {
        "name": to_text(name.read()).take(kept) if name else None,
        "ra": pa.array(ra),
        "dec": pa.array(dec),
        "pm_ra": _or_null(pm_ra),
        "pm_dec": _or_null(pm_dec),
        "ref_epoch": _epochs(sheet, position, good),
        "redshift": _or_null(to_numbers(z.read())[good]) if (z := find_redshift(sheet.columns)) else None,
        "label": to_text(label.read()).take(kept) if label else None,
        "row_in_catalogue": pa.array(np.flatnonzero(good) + 1),
    }
    arrays = [
        pa.nulls(len(kept), field.type) if values[field.name] is None else values[field.name].cast(field.type)
        for field in TARGETS
    ]
    shown = [c for c in (name, position.lon, None if is_packed else position.lat) if c]
    return TargetFile(pa.Table.from_arrays(arrays, schema=TARGETS), _bad_rows(sheet, shown, reasons))


def _proper_motion(sheet: Sheet, position: Position, good: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, bool]:
    """Get proper motions in mas/yr, and whether they are in the frame of the position (else in ICRS)."""
    found = find_proper_motion(sheet.columns, position)
    if found is None:
        none = np.full(int(good.sum()), np.nan)
        return none, none, True
    unit = u.mas / u.yr
    values = []
    for column in found:
        declared = unit_of(column.declared_unit, f"proper motion {column.name}", like=unit)
        factor = 1.0 if declared is None else declared.to(unit)
        values.append(to_numbers(column.read())[good] * factor)
    # A table with l and b gives pmra in right ascension all the same.
    return values[0], values[1], position.is_equatorial or bool(found[0].role)


def _epochs(sheet: Sheet, position: Position, good: npt.NDArray[np.bool_]) -> Any:
    """Get the epochs of the positions: a column of Julian years, or else what the file declares."""
    column = find_epoch(sheet.columns)
    if column is None:
        n_good = int(good.sum())
        return None if position.epoch is None else pa.array(np.full(n_good, position.epoch))
    years = to_numbers(column.read())[good]
    # Columns called epoch count many things; only years of observed positions are taken.
    return _or_null(np.where((years > 1800.0) & (years < 2200.0), years, np.nan))


def _or_null(values: Floats) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _bad_rows(sheet: Sheet, shown: list[Column], reasons: dict[int, str]) -> tuple[BadRow, ...]:
    if not reasons:
        return ()
    rows = sorted(reasons)
    if sheet.lines:
        return tuple(
            BadRow(sheet.lines[row], reasons[row], sheet.texts[row].strip("\n")[:_LONGEST_TEXT]) for row in rows
        )
    cells = [(c.name, c.read().take(pa.array(rows)).to_pylist()) for c in shown]
    texts = (", ".join(f"{name}={values[i]}" for name, values in cells) for i in range(len(rows)))
    return tuple(BadRow(row + 1, reasons[row], text[:_LONGEST_TEXT]) for row, text in zip(rows, texts, strict=True))
