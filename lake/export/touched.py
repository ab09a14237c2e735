"""Which archives and samples a query reads.

A SELECT over light curves (or another table or view that has columns archive and release), joined with any other
tables and with any conditions, is repeated as SELECT DISTINCT archive, release: that is exact. Of any other query, what
counts is what its plan reads: all archives of each table in it, unless the plan reads one archive alone. So none is
missed, but one that gave no row may be named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from lake.errors import LightlakeError
from lake.model.declared import all_tables, tables_by_archive
from lake.model.table import quoted

Ask = Callable[..., pa.Table]

# Tables that describe archives, or work: their rows are no data of archives.
_ABOUT = {"archives", "bands", "ledger", "metrics", "runs", "files", "schema_version", "targets", "labels", "aliases"}
_ARCHIVE_FILTER = re.compile(r"archive='([a-z0-9_]+)'")
_SAMPLE_FILTER = re.compile(r"sample='((?:[^']|'')*)'")
# Columns of labels that an answer shows; a name or an id of a target is none of a sample's.
_OF_SAMPLES = {"sample", "label", "bibcode", "catalogue", "row_in_catalogue"}


@dataclass(frozen=True)
class Touched:
    """Archives with their releases, and samples, that an answer has rows of."""

    archives: set[tuple[str, str]]
    samples: set[str]
    is_exact: bool


def touched(query: str, ask: Ask) -> Touched:
    """Find the archives and samples that a query reads.

    Parameters
    ----------
    query
        DuckDB's SQL.
    ask
        Runs SQL with parameters in the lake.

    Raises
    ------
    ConfigurationError
        If the SQL is wrong.
    """
    plan = json.loads(ask(f"EXPLAIN (FORMAT json) {query}", None)[1][0].as_py())
    scans = list(_scans(plan))
    samples = _samples(scans, ask)
    named = _named(query, ask)
    if named is not None and all(_kind(name, ask) == "about" for name in named):
        return Touched(set(), samples, is_exact=True)
    exact = _exact(query, ask)
    if exact is not None:
        return Touched(exact, samples, is_exact=True)
    # What DuckDB answers from statistics is in no scan.
    unread = set(named or ()) - {scan["Table"] for scan in scans}
    scans += [{"Table": name} for name in sorted(unread & set(all_tables()))]
    return Touched(_of_scans(scans, ask), samples, is_exact=False)


def _named(query: str, ask: Ask) -> list[str] | None:
    """Return the names of all tables, views and macros in a query; None if it is no SELECT."""
    parsed = json.loads(ask(f"SELECT json_serialize_sql({quoted(query)})", None)[0][0].as_py())
    return None if parsed.get("error") else list(_tables(parsed["statements"]))


def _scans(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        if "Table" in node.get("extra_info", {}):
            yield node["extra_info"]
        yield from _scans(node.get("children", []))


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _of_scans(scans: list[dict[str, Any]], ask: Ask) -> set[tuple[str, str]]:
    owners = {table.name: archive for archive, tables in tables_by_archive().items() for table in tables}
    known = all_tables()
    found = set[tuple[str, str]]()
    read = [scan for scan in scans if scan["Table"].split(".")[-1] not in _ABOUT]
    for scan in read:
        name = scan["Table"].split(".")[-1]
        if name not in known:
            continue
        where = [match[1] for text in _texts(scan.get("Filters")) if (match := _ARCHIVE_FILTER.fullmatch(text))]
        if {"archive", "release"} <= set(known[name].names):
            condition = f"WHERE archive = {quoted(where[0])}" if where else ""
            found |= _pairs(f"SELECT DISTINCT archive, release FROM {name} {condition}", ask)
        elif name in owners:
            found |= _pairs(f"SELECT archive, release FROM archives WHERE archive = {quoted(owners[name])}", ask)
    if not read:  # answered from statistics, or from what is no table of the lake
        found |= _pairs("SELECT DISTINCT archive, release FROM coverage", ask)
        found |= _pairs("SELECT DISTINCT archive, release FROM lightcurves", ask)
    return found


def _pairs(query: str, ask: Ask) -> set[tuple[str, str]]:
    return {(row["archive"], row["release"]) for row in ask(query, None).to_pylist() if row["archive"]}


def _samples(scans: list[dict[str, Any]], ask: Ask) -> set[str]:
    names = set[str]()
    for scan in scans:
        if scan["Table"].split(".")[-1] != "labels" or not _OF_SAMPLES & set(_texts(scan.get("Projections"))):
            continue
        where = [match[1] for text in _texts(scan.get("Filters")) if (match := _SAMPLE_FILTER.fullmatch(text))]
        if where:
            names.add(where[0].replace("''", "'"))
        else:
            names |= set(ask("SELECT DISTINCT sample FROM labels", None)["sample"].to_pylist())
    return names


def _exact(query: str, ask: Ask) -> set[tuple[str, str]] | None:
    """Return the archives and releases of the rows, if the query is a plain SELECT; else None."""
    try:
        parsed = json.loads(ask(f"SELECT json_serialize_sql({quoted(query)})", None)[0][0].as_py())
        if parsed.get("error") or len(parsed["statements"]) != 1:
            return None
        node = parsed["statements"][0]["node"]
        if node["type"] != "SELECT_NODE" or node["cte_map"]["map"] or node.get("sample"):
            return None
        leaves = list(_leaves(node["from_table"], visible=True))
        if any(one is None for one in leaves):
            return None
        data = dict[str, str]()
        for name, alias, is_visible in filter(None, leaves):
            kind = _kind(name, ask)
            if kind == "unknown" or (kind == "data" and not is_visible):
                return None
            if kind == "data":
                data[alias] = name
        others = [name for part in _elsewhere(node) for name in _tables(part)]
        if not data or any(_kind(name, ask) != "about" for name in others):
            return None
        found = set[tuple[str, str]]()
        for alias in data:
            found |= _pairs(_distinct(parsed, alias, ask), ask)
        return found
    except (LightlakeError, KeyError):  # what cannot be rewritten so is read from the plan
        return None


def _elsewhere(node: dict[str, Any]) -> list[Any]:
    """Return all of a SELECT but its own FROM."""
    return [value for name, value in node.items() if name != "from_table"]


def _leaves(table: dict[str, Any], *, visible: bool) -> Iterator[tuple[str, str, bool] | None]:
    """Yield name, alias and whether rows show, of each table in a FROM; None for what is no plain table or macro."""
    if table["type"] == "BASE_TABLE":
        yield table["table_name"], table.get("alias") or table["table_name"], visible
    elif table["type"] == "JOIN":
        hidden = table.get("join_type") in ("SEMI", "ANTI", "MARK", "SINGLE")
        yield from _leaves(table["left"], visible=visible)
        yield from _leaves(table["right"], visible=visible and not hidden)
        for name in _tables(table.get("condition")):
            yield name, name, False
    elif table["type"] == "SUBQUERY":
        for name in _tables(table.get("subquery")):
            yield name, name, False
    else:
        yield None


def _tables(part: Any) -> Iterator[str]:
    """Yield the names of all tables anywhere in a part of a parsed query."""
    if isinstance(part, dict):
        if part.get("type") == "BASE_TABLE":
            yield part["table_name"]
        elif part.get("type") == "TABLE_FUNCTION":
            yield part["function"]["function_name"]
        for value in part.values():
            yield from _tables(value)
    elif isinstance(part, list):
        for value in part:
            yield from _tables(value)


def _kind(name: str, ask: Ask) -> str:
    """Return data for a table or view with archive and release, about for one without data of archives, or unknown."""
    if name in _ABOUT or name == "target_names":
        return "about"
    try:
        columns = set(ask(f"DESCRIBE {name}", None)["column_name"].to_pylist())
    except LightlakeError:
        return "unknown"
    return "data" if {"archive", "release"} <= columns else "unknown"


def _distinct(parsed: dict[str, Any], alias: str, ask: Ask) -> str:
    """Return the SQL of the archives and releases of the rows that a SELECT reads."""
    made = json.loads(json.dumps(parsed))
    node = made["statements"][0]["node"]
    node["select_list"] = [
        {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": name, "column_names": [alias, name]}
        for name in ("archive", "release")
    ]
    node |= {"modifiers": [], "group_expressions": [], "group_sets": [], "having": None, "qualify": None}
    node["aggregate_handling"] = "STANDARD_HANDLING"
    text = ask(f"SELECT json_deserialize_sql({quoted(json.dumps(made))}::JSON)", None)[0][0].as_py()
    return f"SELECT DISTINCT archive, release FROM ({text})"
