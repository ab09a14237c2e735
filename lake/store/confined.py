"""Confine a lake for SQL of untrusted users: DuckDB reaches only the lake, and each query is checked first.

There are two barriers. DuckDB's configuration shuts out file systems and networks, and is locked. It does not stop a
query from reading files of the lake, or from calling table functions that change DuckDB or query the catalogue's
database (postgres_query, enable_logging). So DuckDB parses a query first, and only one SELECT passes, over tables,
views and table functions that are known to be harmless.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from lake.errors import ConfigurationError
from lake.model.table import quoted
from lake.settings import Settings
from lake.store.storage import Storage

# The page that helps with errors from here.
HELP_TOPIC = "how-to/queries"

# Memory for a query, unless LIGHTLAKE_DUCKDB_MEMORY says otherwise; and disk space to spill to.
MEMORY = "1GB"
SPILLED = "10GB"

# Nobody writes longer queries, and DuckDB's parser is slow for deeply nested ones.
LONGEST_QUERY = 100_000

# Table functions that read only their arguments, in addition to the lake's own macros.
_HARMLESS = {"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"}

# Scalar functions that reveal the process or write to its log; and those that make a huge value from a short query:
# while DuckDB computes one value, it neither counts memory nor can be interrupted.
_REFUSED = {
    "current_setting",
    "write_log",
    "nextval",
    "json_serialize_sql",
    "json_deserialize_sql",
    "repeat",
    "lpad",
    "rpad",
    "format",
    "printf",
    "list_resize",
    "array_resize",
}
_LISTS, _LONGEST_LIST = {"range", "generate_series"}, 1_000_000

_SCHEMATA = {"", "main", "lake"}
_HINT = "write one SELECT over the lake's tables, views and macros: see them with lightlake schema"


def lock(connection: duckdb.DuckDBPyConnection, storage: Storage, settings: Settings) -> None:
    """Shut a DuckDB, with its extensions loaded and the lake attached, off from everything else."""
    for setting, value in (
        ("allowed_directories", f"[{quoted(f'{storage.data}/')}]"),
        ("memory_limit", quoted(settings.duckdb_memory or MEMORY)),
        ("max_temp_directory_size", quoted(SPILLED)),
        ("python_enable_replacements", "false"),  # otherwise a table's name may be a Python variable
        ("allow_community_extensions", "false"),
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
    ):
        connection.execute(f"SET GLOBAL {setting} = {value}")


@contextmanager
def time_limit(cursor: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt a cursor after some seconds.

    Raises
    ------
    ConfigurationError
        If it was interrupted.
    """
    done = threading.Event()

    def watch() -> None:
        patience = seconds
        while not done.wait(patience):
            cursor.interrupt()
            patience = 0.2  # the first may have hit the statement before

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except duckdb.InterruptException as error:
        raise ConfigurationError(
            f"the query took longer than {seconds:g} s", hint="ask for less, or raise LIGHTLAKE_QUERY_TIMEOUT_S"
        ) from error
    finally:
        done.set()
        watcher.join()


class Guard:
    """Check which tables and functions a query names, in one lake.

    Parameters
    ----------
    cursor
        A connection to the lake.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        def names(query: str) -> set[str]:
            return {row[0].lower() for row in cursor.execute(query).fetchall()}

        self._tables = names(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' "
            "UNION SELECT view_name FROM duckdb_views() WHERE database_name = 'lake' AND NOT internal"
        )
        self._functions = _HARMLESS | names(
            "SELECT function_name FROM duckdb_functions() "
            "WHERE database_name = 'lake' AND function_type = 'table_macro' AND NOT internal"
        )
        self._others = names("SELECT view_name FROM duckdb_views() WHERE internal")

    def check(self, cursor: duckdb.DuckDBPyConnection, query: str) -> None:
        """Check that a query is one SELECT, and names only what it may.

        Raises
        ------
        ConfigurationError
            If not; says what is refused.
        """
        if len(query) > LONGEST_QUERY:
            raise ConfigurationError(f"the query is longer than {LONGEST_QUERY} characters", hint=_HINT)
        serialized = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0][0]
        try:
            parsed = json.loads(serialized)
        except RecursionError as error:
            raise ConfigurationError("the query is nested too deeply", hint=_HINT) from error
        if parsed["error"]:
            if parsed.get("error_type") == "not implemented":
                raise _refused("statements other than SELECT")
            message = " ".join(str(parsed.get("error_message")).partition("\n\n")[0].split())
            raise ConfigurationError(f"the SQL failed: {message}", hint=_HINT)
        if len(parsed["statements"]) != 1:
            raise _refused("several statements at once")
        nodes = list(_nodes(parsed))
        within = self._named_within(nodes)
        tabular = {id(node["function"]) for node in nodes if node.get("type") == "TABLE_FUNCTION"}
        for node in nodes:
            kind = node.get("type")
            if kind == "TABLE_FUNCTION":
                self._check_function(node["function"])
            elif kind == "BASE_TABLE":
                self._check_table(node, within)
            elif node.get("class") == "FUNCTION":
                _check_scalar(node, tabular)

    def _named_within(self, nodes: list[dict[str, Any]]) -> set[str]:
        """Return the names defined by a query's WITH, which must not mean anything else in it."""
        named = set()
        for node in nodes:
            for entry in (node.get("cte_map") or {}).get("map", []):
                name = str(entry["key"]).lower()
                if name in self._others or not re.fullmatch(r"\w+", name):
                    raise _refused(f"WITH {entry['key']!r}")
                named.add(name)
        return named

    def _check_function(self, function: dict[str, Any]) -> None:
        name = str(function.get("function_name", ""))
        at_home = {str(function.get(key, "")).lower() for key in ("schema", "catalog")} <= _SCHEMATA
        if not at_home or name.lower() not in self._functions:
            raise _refused(f"the table function {name}()")

    def _check_table(self, node: dict[str, Any], within: set[str]) -> None:
        catalog, schema, name = (str(node[key]).lower() for key in ("catalog_name", "schema_name", "table_name"))
        known = self._tables if schema or catalog else self._tables | within
        if catalog in ("", "lake") and schema == "information_schema":
            return
        if not {catalog, schema} <= _SCHEMATA or name not in known:
            raise _refused(f"the table {'.'.join(filter(None, (catalog, schema, name)))}")


def _check_scalar(function: dict[str, Any], tabular: set[int]) -> None:
    name = str(function["function_name"]).lower()
    if name in _LISTS and id(function) not in tabular:
        for one in function["children"]:
            value = (one.get("value") or {}).get("value")
            if not isinstance(value, int) or abs(value) > _LONGEST_LIST:
                raise _refused(f"{name}() as a list of more than {_LONGEST_LIST} values, or of a computed length,")
    if name in _REFUSED and id(function) not in tabular:
        raise _refused(f"{name}()")


def _nodes(parsed: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a parsed query, without recursion."""
    waiting = [parsed]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _refused(what: str) -> ConfigurationError:
    return ConfigurationError(f"{what} cannot be used through this handle of the lake", hint=_HINT)
