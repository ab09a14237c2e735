"""What a list of targets holds: its targets, its bad rows, and the columns that were taken."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lake.errors import ConfigurationError
from tasks.samples.columns import Column, Position
from tasks.samples.table import InputTable

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


class NoPositions(ConfigurationError):
    """A file has rows, and no columns that are known to hold positions."""

    advice = "Name the columns: `--ra` and `--dec`; or `--name` if it has names only."
    topic = "how-to/target-lists"


@dataclass(frozen=True)
class BadRow:
    """A row without a usable target.

    Parameters
    ----------
    line
        The line in a text file, the row in a binary one; both count from 1.
    reason
        What is wrong with it.
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
        What it holds: a column of `TARGETS`, or frame.
    column
        Its name.
    unit, frame, epoch
        Its unit, frame and epoch; empty where it has none.
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
        The rows without a usable target.
    remarks
        What was left out, or is in doubt.
    taken, unused
        The columns that were taken, and the names of the others.
    aliases
        If positions are those of names: what services said of these, as `lake.commit.targets.add_targets` takes it.
    """

    targets: pa.Table
    bad_rows: tuple[BadRow, ...]
    remarks: tuple[str, ...] = ()
    taken: tuple[Taken, ...] = ()
    unused: tuple[str, ...] = ()
    aliases: pa.Table | None = None


def taken_columns(
    position: Position,
    name: Column | None,
    label: Column | None,
    frames: list[Column],
    motion: list[Column],
    epoch: Column | None,
    redshift: Column | None,
    asked: float | None,
) -> tuple[Taken, ...]:
    """Describe the columns that were taken, with their unit, frame and epoch; `asked` is the user's epoch."""
    lon, lat = list(position.frame.get_representation_component_names())[:2]
    frame = position.frame.name + (f" {position.frame.equinox.value}" if hasattr(position.frame, "equinox") else "")
    of = f"{frame} ({position.frame_from})" if position.frame_from else f"{frame} (the file does not say)"
    if frames:
        of = f"{' and '.join(c.name for c in frames)} of each row, or {frame}"
    default_epoch = position.epoch if position.epoch is not None else asked
    at = "" if default_epoch is None else f"{default_epoch:g}"
    if epoch:
        at = epoch.name if asked is None else f"{epoch.name}, or {asked:g}"
    lon_unit = "deg, or hours where sexagesimal" if lon == "ra" else "deg"
    return tuple(
        Taken(quantity, column.name, column.declared_unit or assumed, frame, at)
        for quantity, column, assumed, frame, at in (
            ("name", name, "", "", ""),
            (lon, position.lon, lon_unit, of, at),
            (lat, position.lat, "deg", of, at),
            *(("frame", c, "", "", "") for c in frames),
            *((q, c, "mas/yr", "", "") for q, c in zip(("pm_ra", "pm_dec"), motion, strict=False)),
            ("ref_epoch", epoch, "yr", "", ""),
            ("redshift", redshift, "", "", ""),
            ("label", label, "", "", ""),
        )
        if column is not None
    )


def list_bad_rows(table: InputTable, shown: list[Column], reasons: dict[int, str]) -> tuple[BadRow, ...]:
    """List the bad rows by their lines, or by the cells of the shown columns if the file is binary."""
    if not reasons:
        return ()
    rows = sorted(reasons)
    if table.lines:
        return tuple(BadRow(table.lines[row], reasons[row], table.texts[row].strip("\n")) for row in rows)
    cells = [(c.name, c.read().take(pa.array(rows)).to_pylist()) for c in shown]
    texts = (", ".join(f"{name}={values[i]}" for name, values in cells) for i in range(len(rows)))
    return tuple(BadRow(row + 1, reasons[row], text) for row, text in zip(rows, texts, strict=True))
