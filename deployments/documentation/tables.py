"""The page of tables, views and macros: what `lightlake schema` prints, and the columns of views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import duckdb

from deployments.documentation.markdown import code, fenced, page, prose, table
from lake.model.declared import Declaration, all_tables, declarations
from lake.model.schema import SCHEMA_VERSION
from lake.model.table import Column, Table, create_statements
from lake.model.views import View, view_statements, views

_HEAD = f"""
# Tables

These are the tables, views and macros of a lake, schema version {SCHEMA_VERSION}. `lightlake schema` prints them, too.
`lightlake sql`, [Python](python.md) and your own DuckDB after
[`lightlake attach`](commands.md#lightlake-attach) see the same. To begin with, use
[target_lightcurves](#target_lightcurves). [Queries](../how-to/queries.md) shows how.

Missing is NULL: never 0, NaN, or a made-up value; a column that says NOT NULL always has one. Positions are
ICRS, units are VOUnits, UCDs are those of the IVOA. A table that is *partitioned* has a folder for each value of that
column, such as `data/main/lightcurves/archive=NAME/`.
"""
_TYPES = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
_COLUMNS = ("column", "type", "unit", "UCD", "what it is")

# DuckLake has this function; here it only says which columns there are.
_CHANGES = """
CREATE MACRO ducklake_table_changes(catalogue, schema, name, first, last) AS TABLE
    SELECT 0::BIGINT AS snapshot_id, 0::BIGINT AS rowid, '' AS change_type, * FROM lightcurves
"""


@dataclass(frozen=True)
class Described:
    """A view or macro with its columns.

    Parameters
    ----------
    view
        The view.
    own
        Columns that it describes itself; what nobody has described has an empty description.
    others
        Names of the other columns, by the table that describes them.
    """

    view: View
    own: list[Column]
    others: dict[str, list[str]]


def described(declared: Sequence[Declaration]) -> Iterator[Described]:
    """Yield each view and macro with its columns, which DuckDB tells.

    Parameters
    ----------
    declared
        What the installed sources declare.
    """
    with duckdb.connect() as connection:
        for one in all_tables().values():
            connection.execute(create_statements(one)[0])
        connection.execute(_CHANGES)
        for statement in view_statements(declared):
            connection.execute(statement)
        for view in views(declared):
            found = connection.execute(f"DESCRIBE FROM {_called(view)}").fetchall() if view.returns_table else []
            own, others = list[Column](), dict[str, list[str]]()
            mine = {column.name: column for column in view.note.columns}
            for name, kind, *_ in found:
                table_of = next((one for one in view.note.tables if name in all_tables()[one].names), None)
                if name in mine or table_of is None:
                    own.append(replace(mine.get(name, Column(name, "", "")), type=_TYPES.get(kind, kind)))
                else:
                    others.setdefault(table_of, []).append(name)
            yield Described(view, own, others)


def _called(view: View) -> str:
    """Return a call of a view or macro, whatever it takes."""
    if view.arguments is None:
        return view.name
    return f"{view.name}({', '.join('NULL' for one in view.arguments if ':=' not in one)})"


def _listed(columns: Iterable[Column]) -> str:
    rows = [
        (code(one.name), f"{one.type}{' NOT NULL' * one.required}", code(one.unit), one.ucd, prose(one.description))
        for one in columns
    ]
    return table(_COLUMNS, rows) if rows else ""


def _of_table(one: Table) -> str:
    facts = [f"One row per {one.row.removeprefix('a ').removeprefix('an ')}."]
    partition = (one.partition,) if one.partition else ()
    for words, names in (("Key:", one.key), ("Partitioned by", partition), ("Sorted by", one.sort)):
        if names:
            facts.append(f"{words} {', '.join(map(code, names))}.")
    return page(f"### {one.name}", prose(" ".join(facts)), _listed(one.columns))


def _of_view(found: Described, calls: Iterable[str]) -> str:
    view, note = found.view, found.view.note
    arguments = [(code(name), prose(text)) for name, text in note.arguments.items()]
    others = [f"- of [{name}](#{name}): {', '.join(map(code, names))}" for name, names in found.others.items()]
    return page(
        f"### {view.name}",
        f"{' and '.join(calls).capitalize()}. {prose(note.text)}",
        fenced(note.example, "sql"),
        table(("argument", "what it is"), arguments) if arguments else "",
        _listed(found.own),
        f"{'Other columns' if found.own else 'Columns'}, as the tables describe them:" if others else "",
        "\n".join(others),
    )


def tables_page() -> str:
    """Return the page of all tables, views and macros; a view and a macro may share a name."""
    found, calls = dict[str, Described](), dict[str, list[str]]()
    for one in described(declarations()):
        found.setdefault(one.view.name, one)
        calls.setdefault(one.view.name, []).append(f"{one.view.kind} {code(one.view.call)}")
    return page(
        _HEAD,
        "## Tables of a lake",
        *map(_of_table, all_tables().values()),
        "## Views and macros",
        "A macro is called like a function: in FROM, if it returns rows.",
        *(_of_view(one, calls[one.view.name]) for one in found.values()),
    )
