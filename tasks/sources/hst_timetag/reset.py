"""Remove HST's light curves from a lake, so that the next run makes them anew; what is known of bad files stays."""

from __future__ import annotations

from typing import Literal

from lake.commit.transaction import Change, write
from lake.model.declared import source_tables
from lake.query import Lake
from lake.store.backup import Backup, back_up
from tasks.sources.hst_timetag.names import OWN
from tasks.sources.hst_timetag.tables import NAME

What = Literal["production", "events", "aliases"]


def tables_of(what: What) -> tuple[str, ...]:
    """Return the tables whose rows go.

    Examples
    --------
    >>> tables_of("aliases")
    ('aliases',)
    """
    if what == "production":
        # The rest follows from light curves, or is asked for again.
        return (*source_tables(NAME), "exposures", "matches", "coverage")
    return (what,)


def counts(lake: Lake, what: What) -> dict[str, int]:
    """Return how many rows each table would lose."""
    return {
        name: int(lake.sql(f"SELECT count(*) AS n FROM {name} {_where(name)}")["n"][0].as_py())
        for name in tables_of(what)
    }


def reset(lake: Lake, what: What) -> Backup | None:
    """Back the catalogue up, and remove the rows; the files themselves stay until the lake is compacted.

    The ledger stays. So exposures that were rejected are skipped, as before, and all others are extracted again.

    Returns
    -------
    Backup or None
        None for a catalogue in PostgreSQL, which has its own tools.
    """
    catalog = lake.catalog

    def work(number: int) -> Backup | None:
        made = back_up(catalog.location, catalog.storage, catalog.settings.backups)
        with Change(catalog, number, rewrites=True) as change:
            for name in tables_of(what):
                change.cursor.execute(f"DELETE FROM {name} {_where(name)}")
            change.keep_aside(tables_of(what))
        return made

    return write(catalog, work)


def _where(name: str) -> str:
    return f"WHERE {OWN}" if name == "aliases" else f"WHERE archive = '{NAME}'"
