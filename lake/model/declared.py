"""What the installed sources bring into a lake: the core knows none of them by name.

Packages above the core declare their sources under the entry point `lightlake.archives`: a function that returns one
`Declaration` for each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points

from lake.model.papers import Paper
from lake.model.schema import SOURCE_TABLES, TABLES
from lake.model.table import Column, Table

# SQL expressions by table and column.
Values = Mapping[str, Mapping[str, str]]

_logger = logging.getLogger(__name__)
_warned = set[str]()


@dataclass(frozen=True, kw_only=True)
class FornaxRows:
    """Rows of an archive as a view of the Fornax collector has them: parts of its SQL.

    Parameters
    ----------
    rows
        A relation with the columns of target_lightcurves; the other parts call it rows.
    time, flux, err
        Expressions; band and label follow from tables bands and labels. Flux is log10 of it, to two decimals, where
        the unit is GeV, as the collector has energies.
    where
        Which rows.
    """

    rows: str = "target_lightcurves"
    time: str = "rows.mjd"
    flux: str = "CASE WHEN rows.unit = 'GeV' THEN round(log10(rows.flux::DOUBLE), 2) ELSE rows.flux::DOUBLE END"
    err: str = "rows.flux_err::DOUBLE"
    where: str = "rows.good AND rows.detected"


@dataclass(frozen=True, kw_only=True)
class ViewNote:
    """What a user of a view or macro must know.

    Parameters
    ----------
    text
        What it returns.
    example
        A query that uses it.
    arguments
        What a macro takes, by name.
    columns
        Columns that no table has, or that mean something else here.
    tables
        Tables that have its other columns, those first whose meaning counts.
    """

    text: str
    example: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    tables: tuple[str, ...] = ("lightcurves", "matches", "targets", "sources", "bands", "exposures")


@dataclass(frozen=True, kw_only=True)
class Views:
    """What an archive adds to the lake's views, and its own views.

    Parameters
    ----------
    statements, notes
        SQL that makes the archive's own views and macros; what a user of them must know, by name.
    exposure_is_curve
        True if each exposure (a sector, a quarter) is a light curve of its own, with its own level.
    thinned_by
        View decimated has every so many rows.
    fornax_where
        Condition on rows, for view fornax.
    fornax_v24
        Names of bands in the Fornax collector of 2024, by band, where they were not today's.
    as_published
        Rows of view fornax_as_published: where the collector's numbers differ from the lake's good ones. None: they
        do not; empty: the collector's are not available.
    """

    statements: tuple[str, ...] = ()
    notes: Mapping[str, ViewNote] = field(default_factory=dict)
    exposure_is_curve: bool = False
    thinned_by: int = 1
    fornax_where: str | None = None
    fornax_v24: Mapping[str, str] = field(default_factory=dict)
    as_published: tuple[FornaxRows, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What one archive or survey brings.

    Parameters
    ----------
    archive
        Its name.
    bands
        Names of its bands.
    command
        Command that asks it for targets; None: lightlake pull and its name.
    views
        What it adds to the views.
    tables
        Tables of its own.
    former_names
        Names that it had in earlier versions. Each comes with what else has changed in the rows written then: by table
        and column, the SQL expression of the new value.
    papers
        Papers that its users are asked to cite.
    """

    archive: str
    bands: tuple[str, ...] = ()
    command: str | None = None
    views: Views = field(default_factory=Views)
    tables: tuple[Table, ...] = ()
    former_names: Mapping[str, Values] = field(default_factory=dict)
    papers: tuple[Paper, ...] = ()


def declarations() -> list[Declaration]:
    """Return what the installed sources declare, in the order of their names."""
    return list(_declared())


@cache
def _declared() -> tuple[Declaration, ...]:
    """Load the declarations, once: finding the entry points reads a file of every installed package."""
    found = [one for point in entry_points(group="lightlake.archives") for one in point.load()()]
    return tuple(sorted(found, key=lambda one: one.archive))


@cache
def tables_by_archive() -> dict[str, tuple[Table, ...]]:
    """Load the tables that sources declare, by archive."""
    return {one.archive: one.tables for one in declarations() if one.tables}


def declared_tables() -> dict[str, Table]:
    """Return the tables that sources declare, by name."""
    return {table.name: table for tables in tables_by_archive().values() for table in tables}


def is_of_sources(table: Table) -> bool:
    """Say whether each row of a table belongs to a source of an archive."""
    return {"archive", "source_id", "hpx29"} <= set(table.names)


def source_tables(archive: str | None = None) -> tuple[str, ...]:
    """Return the tables whose rows are replaced with their source: those of the core, and declared ones.

    Parameters
    ----------
    archive
        Only the tables that this archive declares; None: those of all archives.
    """
    declared = declared_tables().values() if archive is None else tables_by_archive().get(archive, ())
    return (*SOURCE_TABLES, *(table.name for table in declared if is_of_sources(table)))


def all_tables() -> dict[str, Table]:
    """Return every table of a lake, by name: those of the core, and those that sources declare."""
    return {**TABLES, **declared_tables()}


def is_table(name: str) -> bool:
    """Say whether a lake has a table of that name."""
    return name in TABLES or name in declared_tables()


def table_named(name: str) -> Table:
    """Return the table of that name; sources are loaded only if the core has none."""
    return TABLES[name] if name in TABLES else declared_tables()[name]


def current_name(name: str, known: Iterable[Declaration] | None = None) -> str:
    """Translate a former name of an archive into its name, with a warning; keep any other.

    Parameters
    ----------
    name
        As the user typed it.
    known
        The declarations; None: load them.
    """
    for one in declarations() if known is None else known:
        if name in one.former_names:
            if name not in _warned:
                _warned.add(name)
                _logger.warning("the archive %s is now called %s: please use the new name", name, one.archive)
            return one.archive
    return name
