"""Read a user's list of targets: CSV, TSV and other text, ECSV, VOTable, FITS, Parquet.

The position columns are found in this order: the SkyCoord column of an astropy table, UCDs, and usual names (see
`tasks.samples.position_columns`). If several columns fit, an error names them, and `ra_column`, `dec_column` and
`frame` choose. In a file without a header the columns are called ``col1``, ``col2``, ... If both options name the same
column, each of its cells holds a whole position, such as a J2000 designation.

Rows without a usable position are bad rows, listed with their line and the reason. Right ascension lies in 0 to
360 deg; galactic and ecliptic longitude may also be negative, down to -180. A text row is one line. Lines that begin
with ``#`` are comments, but one below the header that looks like a row is a bad row. In a file with several tables,
the one with positions is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
from lake.text import counted
from tasks.samples.cells import Floats, is_missing, to_names
from tasks.samples.columns import Column, Position, find_frames, find_name, listing, named
from tasks.samples.frames import frames_of_rows, groups_of, same
from tasks.samples.motion import FIRST_YEAR, LAST_YEAR, epochs, proper_motion, redshifts
from tasks.samples.parts import put_together
from tasks.samples.position_columns import find_position
from tasks.samples.positions import frame_of, like_hours, refuse_offsets, split_positions, to_degrees, to_icrs
from tasks.samples.table import InputTable
from tasks.samples.tables import read_tables, unreadable
from tasks.samples.target_file import TARGETS, NoPositions, TargetFile, list_bad_rows, taken_columns


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
    r"""Read a list of targets.

    Parameters
    ----------
    path
        The file, compressed with gzip or not.
    label_column
        The column with the labels.
    ra_column, dec_column
        The columns with the positions, in any frame, if the file has several.
    name_column
        The column with the targets' names, if the file has several.
    frame
        The frame of the positions: ``icrs``, ``fk5``, ``fk4``, ``galactic`` or another name of astropy, with
        an optional equinox (``fk5 J1975``). By default what the file declares, or ICRS.
    epoch
        Julian year of the positions, for rows without one in the file.
    format
        ``ecsv``, ``csv``, ``tsv``, ``ascii`` (blanks between cells), ``votable``, ``fits`` or ``parquet``.
        By default the file's content and name decide.

    Returns
    -------
    TargetFile
        The targets in the order of the file, and the bad rows.

    Raises
    ------
    ConfigurationError
        If the file can't be read or has no rows, or if it isn't clear which columns hold the positions.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "list.csv"
    >>> _ = path.write_text("name,ra,dec\nM 87,12h30m49.42s,+12d23m28.0s\nnowhere,400,0\n")
    >>> found = read_targets(path)
    >>> [round(found.targets[name][0].as_py(), 5) for name in ("ra", "dec")]
    [187.70592, 12.39111]
    >>> [(row.line, row.reason) for row in found.bad_rows]
    [(3, 'right ascension 400 is outside 0 to 360 deg')]
    """
    path = Path(path)
    if epoch is not None and not FIRST_YEAR < epoch < LAST_YEAR:
        raise ConfigurationError(f"epoch cannot be {epoch:g}", hint="give the Julian year of the positions: 2016.0")
    asked = [c for c in (ra_column, dec_column, label_column, name_column) if c]
    with _expected_warnings():
        tables = read_tables(path, format=format, asked=asked)
        try:
            table, position = _choose(tables, path.name, ra_column, dec_column, frame)
            columns = table.columns
            label = named(columns, label_column, path.name) if label_column else None
            name = named(columns, name_column, path.name) if name_column else find_name(columns)
            return _assemble(table, position, name, label, epoch)
        except (OSError, pa.ArrowException) as error:  # cells are read when they are needed
            raise unreadable(path.name, format or "table", error) from error


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Silence warnings about archives' headers; a truncated FITS file stays an error."""
    with warnings.catch_warnings():
        for category in (VOWarning, u.UnitsWarning, VerifyWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("error", ".*truncated.*", AstropyUserWarning)
        yield


def _choose(
    tables: list[InputTable], where: str, ra_column: str | None, dec_column: str | None, frame: str | None
) -> tuple[InputTable, Position]:
    """Choose the table that has rows and positions."""
    filled = [
        replace(table, columns=put_together(table.columns, strict=not ra_column)) for table in tables if table.n_rows
    ]
    if not filled:
        raise ConfigurationError(f"{where} has no rows", hint="give a file with one target a row")
    if len(filled) > 1 and ra_column and dec_column:
        filled = [s for s in filled if {ra_column, dec_column} <= {c.name for c in s.columns}] or filled[:1]
    found: list[tuple[InputTable, Position | ConfigurationError]] = []
    for table in filled:
        try:
            position = find_position(
                table.columns,
                where,
                ra_column=ra_column,
                dec_column=dec_column,
                frame=frame,
                declared=table.frames,
                notes=table.notes,
            )
        except ConfigurationError as error:
            found.append((table, error))  # it has positions, but several
        else:
            if position is not None:
                found.append((table, position))
    if len(found) == 1:
        table, only = found[0]
        if isinstance(only, ConfigurationError):
            raise only
        return table, only
    if found:
        titles = ", ".join(table.title for table, _ in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ConfigurationError(
            f"{where} has {counted(len(found), 'table')} with positions: {titles}",
            hint="save the one you want in a file of its own",
        )
    what = "positions" if frame is None else f"positions in {frame}"
    header = "" if filled[0].has_header else " and no header line"
    raise NoPositions(
        f"{where} has no columns that are known to hold {what}{header}; it has: {_with_samples(filled[0])}",
        hint="say which ones do with --ra and --dec (ra_column, dec_column), and their frame with --frame",
    )


def _with_samples(table: InputTable) -> str:
    if table.has_header:
        arrays = f"; columns of arrays: {listing(table.skipped)}" if table.skipped else ""
        return listing(c.name for c in table.columns) + arrays
    return ", ".join(f"{c.name} ({c.read()[0].as_py()})" for c in table.columns)


def _assemble(
    table: InputTable, position: Position, name: Column | None, label: Column | None, epoch: float | None
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
    remarks = list(table.remarks)
    if equatorial and not position.lon.declared_unit and like_hours(lon, lat, lon_cells):
        remarks.append(
            f"all values of {position.lon.name} are below 24, and taken as degrees; for hours, rename it RA_hours"
        )
    frames, frame_columns = _frames(table, position, reasons, remarks)
    for row in _two_words(table, name):
        reasons.setdefault(row, "its name may have two words: put quotes around it")
    reasons |= table.broken
    good = np.ones(table.n_rows, dtype=bool)
    good[list(reasons)] = False

    pm_lon, pm_lat, pm_columns = proper_motion(table.columns, position, lat, remarks)
    years, epoch_column = epochs(table.columns, position, remarks)
    redshift, redshift_column = redshifts(table.columns, remarks)
    if epoch is not None:
        years = np.where(np.isnan(years), epoch, years)
    moving = np.isfinite(pm_lon) & np.isfinite(pm_lat) & good
    if unknown := int((moving & np.isnan(years)).sum()):
        remarks.append(
            f"no epoch for {counted(unknown, 'target')} with proper motion ({listing(c.name for c in pm_columns)}): "
            "archives are searched at the listed position; give the epoch with --epoch 2016.0 (a Julian year)"
        )
    ra, dec, pm_ra, pm_dec = (np.full(table.n_rows, np.nan) for _ in range(4))
    # A table with l and b may still have pmra, in right ascension.
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
            remarks.append(f"numbers of column {column.name} were stored as floats: their last digits are lost")
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
    taken = taken_columns(position, name, label, frame_columns, pm_columns, epoch_column, redshift_column, epoch)
    used = {c.column for c in taken}
    unused = [c.name for c in table.columns if c.name not in used] + list(table.skipped)
    targets = pa.Table.from_arrays(arrays, schema=TARGETS)
    return TargetFile(targets, list_bad_rows(table, shown, reasons), tuple(remarks), taken, tuple(unused))


def _two_words(table: InputTable, name: Column | None) -> list[int]:
    """Find rows like ``NGC 1 10.5 41.2`` with a cell missing, where the name's number would become a coordinate."""
    behind = table.columns[table.columns.index(name) + 1 :] if name in table.columns else ()
    if not table.blanks or name is None or not behind:
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
    table: InputTable, position: Position, reasons: dict[int, str], remarks: list[str]
) -> tuple[list[Any], list[Column]]:
    """Get each row's frame, None for the position's, and the columns that state it; rows in no frame are bad."""
    none: list[Any] = [None] * table.n_rows
    system, equinox = find_frames(table.columns)
    if not position.is_equatorial or (not system and not equinox):
        return none, []
    if position.frame_from in ("asked for", "name"):
        if position.frame_from == "name" and equinox:
            remarks.append(f"{equinox.name} is not taken: the name of {position.lon.name} says its equinox")
        return none, []
    frames, wrong = frames_of_rows(system.read() if system else None, equinox.read() if equinox else None, table.n_rows)
    if system and len(wrong) == table.n_rows and not equinox:
        return none, []  # the column is about something else
    stating = [c.name for c in (system, equinox) if c]
    old = any(frame is not None and not same(frame, frame_of("icrs")) for frame in frames)
    for row, frame in enumerate(frames):
        if frame is None:
            if old and not position.frame_from:
                wrong.setdefault(row, f"{' and '.join(stating)} say nothing, and other rows are in an old frame")
            continue
        if "ra" not in frame.get_representation_component_names():
            wrong[row] = f"{' and '.join(stating)} say {frame.name}, and the columns hold right ascension"
        elif position.frame_from and not same(frame, position.frame):
            wrong[row] = f"{' and '.join(stating)} say another frame than the file's {position.frame_from}"
    for row, reason in wrong.items():
        reasons.setdefault(row, reason)
    return frames, [c for c in (system, equinox) if c]


def _or_null(values: Floats) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))
