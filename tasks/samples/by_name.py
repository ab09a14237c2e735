"""Lists of targets by name: files of names without positions, or names that a command is given.

A file of names alone has one a line; blank lines and those that begin with ``#`` do not count. Tables in any format
have a column of names, which is found as in lists with positions, or is the only column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lake.commit.aliases import METHODS
from lake.commit.targets import MATCH_RADIUS_ARCSEC
from lake.errors import ArchiveError, ConfigurationError
from lake.names import find_target, no_target
from lake.query import Lake
from lake.redact import safe_line
from lake.science.motion import J2000
from lake.science.sky import SkyIndex, apply_proper_motion
from lake.settings import Settings
from lake.text import counted
from tasks.samples.cells import MISSING, is_missing, to_names
from tasks.samples.column_names import NAMES
from tasks.samples.columns import find_name, named
from tasks.samples.files import read_targets
from tasks.samples.motion import redshifts
from tasks.samples.names import Resolved, alias_rows, refusal, resolve
from tasks.samples.table import InputTable
from tasks.samples.tables import FORMATS, read_lines, read_tables
from tasks.samples.target_file import TARGETS, BadRow, NoPositions, Taken, TargetFile, list_bad_rows

# Files that hold no list, so that nobody is asked for an object of that name.
_OTHER_FILES = (".xlsx", ".xls", ".ods", ".numbers", ".docx", ".pdf", ".json", ".zip")
_NUMERIC = re.compile(r"[-+]?\d[\d.:]*")
# Ids that a reason names.
_SHOWN = 5
# A name that a list of the lake has: table aliases has no such method.
_OF_LISTS = "target"
_QUOTED = re.compile(r"(['\"])(.*)\1")


@dataclass(frozen=True)
class NameList:
    """Names with what a list says of them.

    Parameters
    ----------
    names
        One for each row; None where there is none.
    lines, texts
        Line, or number of the row, and the row as the file has it.
    labels, redshifts
        If the list has them; None or NaN in a row without one.
    rows
        Numbers of the rows in their catalogue; None for names without one.
    bad_rows
        Rows without cells, which are among no others.
    remarks, taken, unused
        As in `TargetFile`.
    """

    names: Sequence[str | None]
    lines: Sequence[int]
    texts: Sequence[str]
    labels: Sequence[str | None] | None = None
    redshifts: Sequence[float] | None = None
    rows: Sequence[int] | None = None
    bad_rows: tuple[BadRow, ...] = ()
    remarks: tuple[str, ...] = ()
    taken: tuple[Taken, ...] = ()
    unused: tuple[str, ...] = ()


def file_of(what: Sequence[str]) -> Path | None:
    """Return the file that some arguments of a command are; None if they are names.

    An argument that is no file is a name, unless it looks like a path: by a suffix of lists, or its folder.

    Raises
    ------
    ConfigurationError
        If there are none, or a file and something else.

    Examples
    --------
    >>> print(file_of(["3C 273"]), file_of(["3C 273", "Mrk 421"]), file_of(["quasars.csv"]))
    None None quasars.csv
    """
    if not what:
        raise ConfigurationError("add which targets?", hint="give a file, or names such as '3C 273'")
    files = [one for one in what if _is_path(one)]
    if files and len(what) > 1:
        raise ConfigurationError(f"{files[0]} is a file, and there is more", hint="give one file, or names")
    return Path(files[0]) if files else None


def _is_path(one: str) -> bool:
    try:
        path = Path(one)
        name = path.name.lower().removesuffix(".gz")
        suffixes = (*_OTHER_FILES, *(suffix for some in FORMATS.values() for suffix in some))
        if path.is_file() or name.endswith(suffixes):
            return True
        return one.startswith(("/", "./", "../", "~")) or (path.parent != Path() and path.parent.is_dir())
    except (OSError, ValueError):  # too long for a path, or with characters that none has
        return False


def names_given(names: Iterable[str]) -> NameList:
    """Make a list of names that a command was given."""
    listed = list(names)
    return NameList(listed, range(1, len(listed) + 1), listed)


def read_names(
    path: Path, *, name_column: str | None = None, label_column: str | None = None, alone: bool = False
) -> NameList | None:
    """Read a list of names without positions; return None if the file is no such list.

    Parameters
    ----------
    path
        The file.
    name_column, label_column
        Columns with names and labels.
    alone
        Read only a text with one name a line.

    Raises
    ------
    ConfigurationError
        If the file can't be read, or has no such column.
    """
    if name_column is None and label_column is None and (lines := read_lines(path)) is not None:
        numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")]
        if _is_plain([line for _, line in numbered]):
            if len(numbered) > 1 and numbered[0][1].strip().strip("'\"").lower() in NAMES:
                numbered = numbered[1:]
            texts = [line.strip() for _, line in numbered]
            cells = [match[2].strip() if (match := _QUOTED.fullmatch(text)) else text for text in texts]
            names = [None if cell.lower() in MISSING else cell for cell in cells]
            return NameList(names, [n for n, _ in numbered], texts, rows=range(1, len(names) + 1))
    if alone:
        return None
    asked = [column for column in (name_column, label_column) if column]
    tables = [table for table in read_tables(path, asked=asked) if table.n_rows]
    found = [table for table in tables if _has_names(table, name_column)]
    if len(found) > 1:
        titles = ", ".join(table.title for table in found[:5])
        raise ConfigurationError(
            f"{path.name} has {counted(len(found), 'table')} with names: {titles}",
            hint="save the one you want in a file of its own",
        )
    return _of_table(found[0], path.name, name_column, label_column) if found else None


def _is_plain(lines: Sequence[str]) -> bool:
    """Say whether lines are names, one each: without cells, as far as one can see."""
    if not lines or lines[0].lower().startswith("byte-by-byte description"):
        return False
    if any(2 * sum(delimiter in line for line in lines) > len(lines) for delimiter in ("\t", ",", ";", "|")):
        return False
    numbers = sum(sum(bool(_NUMERIC.fullmatch(cell)) for cell in line.split()) > 1 for line in lines)
    if 2 * numbers > len(lines):
        return False
    # A table with blanks between its cells: name z.
    first = lines[0].split()
    is_header = len(first) > 1 and first[0].lower() in NAMES
    widths = {len(line.split()) for line in lines}
    return not (is_header and len(widths) == 1 and not any(line.split()[0] == first[0] for line in lines[1:]))


def _has_names(table: InputTable, name_column: str | None) -> bool:
    if name_column is not None:
        return any(name_column.lower() == column.name.lower() for column in table.columns)
    return len(table.columns) == 1 or find_name(table.columns) is not None


def _of_table(table: InputTable, where: str, name_column: str | None, label_column: str | None) -> NameList:
    columns = table.columns
    name = named(columns, name_column, where) if name_column else find_name(columns) or columns[0]
    label = named(columns, label_column, where) if label_column else None
    remarks = list(table.remarks)
    texts, rounded = to_names(name.read())
    if rounded:
        remarks.append(f"numbers of column {name.name} were stored as floats: their last digits are lost")
    texts = pc.if_else(is_missing(texts), None, texts)
    values, redshift = redshifts(columns, remarks)
    bad = list_bad_rows(table, [name], dict(table.broken))
    good = [row for row in range(table.n_rows) if row not in table.broken]
    labels = to_names(label.read())[0].to_pylist() if label else None
    used = {column.name for column in (name, label, redshift) if column}
    names = texts.to_pylist()
    return NameList(
        [names[row] for row in good],
        [table.lines[row] if table.lines else row + 1 for row in good],
        [table.texts[row].strip("\n") if table.lines else f"{name.name}={names[row]}" for row in good],
        [labels[row] for row in good] if labels else None,
        None if redshift is None else [float(values[row]) for row in good],
        [row + 1 for row in good],
        bad,
        tuple(remarks),
        tuple(
            Taken(quantity, column.name)
            for quantity, column in (("name", name), ("redshift", redshift), ("label", label))
            if column
        ),
        tuple(column.name for column in columns if column.name not in used) + tuple(table.skipped),
    )


@dataclass(frozen=True)
class Names:
    """How names of lists become positions.

    Parameters
    ----------
    settings
        Of the services.
    lake
        Whose kept answers and targets count; None: neither.
    again
        Ask for names whose answers are kept, too.
    radius_arcsec
        An object this close to a target of the lake is that target.
    """

    settings: Settings
    lake: Lake | None = None
    again: bool = False
    radius_arcsec: float = MATCH_RADIUS_ARCSEC

    def located(self, listed: NameList) -> TargetFile:
        """Return a list with the positions of its names; rows whose names have none are bad rows.

        Raises
        ------
        ArchiveError
            If a service does not answer, after retries.
        """
        given = [(name or "").strip() for name in listed.names]
        own, clashes = self._own(given)
        asked = [name for name in given if name not in own and name not in clashes]
        answers = resolve(asked, self.settings, self.lake, again=self.again)
        objects, reasons = {**answers.found, **own}, {**answers.unknown, **clashes}
        good = [row for row, name in enumerate(given) if name in objects]
        found = [objects[given[row]] for row in good]
        bad = [
            BadRow(listed.lines[row], reasons[name], listed.texts[row])
            for row, name in enumerate(given)
            if name not in objects
        ]
        targets = pa.table(
            {
                "name": pa.array([given[row] for row in good], pa.string()),
                **{
                    name: pa.array([getattr(one, name) for one in found], pa.float64())
                    for name in ("ra", "dec", "pm_ra", "pm_dec", "ref_epoch")
                },
                "redshift": pa.array(
                    [_redshift(listed, row, one) for row, one in zip(good, found, strict=True)], pa.float64()
                ),
                "label": pa.array([listed.labels[row] if listed.labels else None for row in good], pa.string()),
                "row_in_catalogue": pa.array([listed.rows[row] if listed.rows else None for row in good], pa.int64()),
            },
            schema=TARGETS,
        )
        looked_up = [number for number, one in enumerate(found) if one.method in METHODS]
        aliases = alias_rows([found[number] for number in looked_up])
        # Their rows in the list, which has targets of the lake, too.
        numbers = pa.array(looked_up, pa.int64()).take(aliases["row"])
        aliases = aliases.set_column(aliases.column_names.index("row"), "row", numbers)
        remarks = [f"{counted(len(own), 'name')} of targets in the lake"] if own else []
        return TargetFile(
            self._snapped(targets),
            tuple(sorted((*listed.bad_rows, *bad), key=lambda row: row.line)),
            (*listed.remarks, *remarks, *answers.remarks),
            listed.taken,
            listed.unused,
            aliases,
        )

    def _own(self, names: Iterable[str]) -> tuple[dict[str, Resolved], dict[str, str]]:
        """Return the targets that lists of the lake call so, and names of several of them with the reason."""
        if self.lake is None or self.again or not self.radius_arcsec:
            return {}, {}
        # As the lake holds names: what is no text is none of them.
        wanted = pa.table({"name": pa.array({name for name in names if refusal(name) is None}, pa.string())})
        rows = self.lake.run(
            "SELECT own.name, list(target_id ORDER BY target_id) AS ids, any_value(ra) AS ra, any_value(dec) AS dec "
            "FROM (SELECT target_id, name FROM targets UNION SELECT target_id, name FROM labels) AS own "
            "SEMI JOIN wanted USING (name) JOIN targets USING (target_id) GROUP BY ALL",
            None,
            wanted=wanted,
        ).to_pylist()
        found, clashes = dict[str, Resolved](), dict[str, str]()
        for row in rows:
            name, ids = row["name"], row["ids"]
            if len(ids) > 1:
                clashes[name] = (
                    f"a name of {counted(len(ids), 'target')} of this lake: {', '.join(map(str, ids[:_SHOWN]))}"
                )
            else:
                found[name] = Resolved(name, name, None, _OF_LISTS, row["ra"], row["dec"], datetime.now(UTC))
        return found, clashes

    def _snapped(self, targets: pa.Table) -> pa.Table:
        """Move objects onto the targets of the lake that they are, compared at the epoch of these."""
        if self.lake is None or not self.radius_arcsec or not targets.num_rows:
            return targets
        known = self.lake.sql("SELECT ra, dec, ref_epoch FROM targets WHERE ref_epoch <> ?", [J2000])
        ra, dec, pm_ra, pm_dec = (
            np.asarray(targets[name].to_numpy(), np.float64) for name in ("ra", "dec", "pm_ra", "pm_dec")
        )
        ra, dec = ra.copy(), dec.copy()
        moving = np.flatnonzero(np.isfinite(pm_ra) & np.isfinite(pm_dec))
        for epoch in pc.unique(known["ref_epoch"]).to_pylist() if len(moving) else ():
            there = known.filter(pc.equal(known["ref_epoch"], epoch))
            index = SkyIndex(there["ra"].to_numpy(), there["dec"].to_numpy())
            then = apply_proper_motion(ra[moving], dec[moving], pm_ra[moving], pm_dec[moving], J2000, epoch)
            row, which, _ = index.nearest(*then, self.radius_arcsec)
            ra[moving[row]] = there["ra"].to_numpy()[which]
            dec[moving[row]] = there["dec"].to_numpy()[which]
            moving = np.delete(moving, row)
        for name, values in (("ra", ra), ("dec", dec)):
            targets = targets.set_column(targets.column_names.index(name), TARGETS.field(name), pa.array(values))
        return targets


def read_list(
    path: Path,
    names: Names,
    *,
    label_column: str | None = None,
    ra_column: str | None = None,
    dec_column: str | None = None,
    name_column: str | None = None,
    frame: str | None = None,
    epoch: float | None = None,
) -> TargetFile:
    """Read a list of targets as `tasks.samples.files.read_targets` does; look its names up if it has no positions.

    Raises
    ------
    ConfigurationError
        If the file can't be read, or has neither positions nor names.
    ArchiveError
        If a service of names does not answer, after retries.
    """
    try:
        return read_targets(
            path,
            label_column=label_column,
            ra_column=ra_column,
            dec_column=dec_column,
            name_column=name_column,
            frame=frame,
            epoch=epoch,
        )
    except ConfigurationError as error:
        if ra_column or dec_column or frame or not path.is_file():
            raise
        # Any other error is of a table with positions, but not if the file has no cells at all.
        alone = not isinstance(error, NoPositions)
        listed = read_names(path, name_column=name_column, label_column=label_column, alone=alone)
        if listed is None or not listed.names:
            raise
    found = names.located(listed)
    remark = f"{path.name} has no positions: its names are looked up"
    return replace(found, remarks=(remark, *found.remarks))


def _redshift(listed: NameList, row: int, one: Resolved) -> float | None:
    own = listed.redshifts[row] if listed.redshifts is not None else np.nan
    return own if np.isfinite(own) else one.redshift


def known_target(lake: Lake, name: str) -> int | None:
    """Return the id of the target that has a name, in the lake's lists or by what services said; None if none has.

    Raises
    ------
    ConfigurationError
        If several targets have that name.
    """
    return find_target(name, lake.run)


def object_named(lake: Lake, name: str) -> TargetFile:
    """Return the object that a name stands for, as a list of one target: by what the lake keeps, or by services.

    Raises
    ------
    ConfigurationError
        If nobody knows the name, or several objects have it.
    ArchiveError
        If a service does not answer, after retries.
    """
    try:
        found = Names(lake.settings, lake).located(names_given([name]))
    except ArchiveError as error:
        # Who has mistyped a target's name expects no service.
        hint = f"no target is named {name!r}, so it was looked up" + (f"; {error.hint}" if error.hint else "")
        error.hint = safe_line(hint)
        raise
    if found.bad_rows:
        raise no_target(name, lake.run, found.bad_rows[0].reason)
    return found
