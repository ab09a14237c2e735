"""How a lake's DuckDB is opened."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from helpers.granules import committed, errors, register

from lake.commit import runs
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.settings import load_settings
from lake.store.connection import connect, extension_file
from lake.store.storage import Storage


def test_nothing_is_downloaded_and_no_query_loads_what_is_unsigned(template: Path, tmp_path: Path) -> None:
    signed = extension_file("httpfs").read_bytes()
    (tmp_path / "httpfs.duckdb_extension").write_bytes(signed[:-256] + bytes(256))  # the signature
    with connect(load_settings(url=str(template)), Storage(template), "sqlite") as connection:
        names = ("allow_unsigned_extensions", "autoinstall_known_extensions", "autoload_known_extensions")
        for name in names:
            assert connection.execute(f"SELECT current_setting('{name}')").fetchall() == [(False,)]
        with pytest.raises(duckdb.IOException, match="signature"):
            connection.execute(f"LOAD '{tmp_path / 'httpfs.duckdb_extension'}'")
        with pytest.raises(duckdb.Error, match="allow_unsigned_extensions"):
            connection.execute("SET GLOBAL allow_unsigned_extensions = true")
        connection.execute(f"LOAD '{extension_file('httpfs')}'")


def test_a_lake_is_opened_so(template: Path) -> None:
    code = (
        "import sys, lake; opened = lake.open(sys.argv[1]); "
        "print(opened.sql(\"SELECT current_setting('allow_unsigned_extensions') AS s\")['s'][0].as_py())"
    )
    done = subprocess.run([sys.executable, "-c", code, template], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_connections_come_back_as_they_were_lent(lake: Lake) -> None:
    """Whatever ran over one: no tables, views or settings of it are left for the next."""
    register(lake.catalog, [1, 2])
    committed(lake.catalog, [1])
    runs.begin(lake.catalog, runs.Start("r", "pull", "host", 1, datetime(2026, 1, 1, tzinfo=UTC)))
    assert errors(lake.catalog) == []
    assert lake.sql("SELECT count(*) AS n FROM targets")["n"].to_pylist() == [2]
    idle = list(lake.catalog._idle._idle)
    assert 1 <= len(idle) <= 3
    for cursor in idle:
        left = "SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal "
        left += "UNION SELECT table_name FROM duckdb_tables() WHERE temporary"
        assert cursor.execute(left).fetchall() == []
        cursor.execute("BEGIN")  # an error within a transaction
        cursor.execute("ROLLBACK")


def test_sql_that_may_leave_something_behind_has_a_connection_of_its_own(lake: Lake) -> None:
    lake.sql("SELECT 1 AS one")
    lake.sql("SET TimeZone = 'Asia/Tokyo'")
    lake.sql("SELECT 1 AS one; CREATE TEMP TABLE own AS SELECT 1 AS x")
    assert lake.sql("SELECT current_setting('TimeZone') AS zone")["zone"].to_pylist() == ["UTC"]
    with pytest.raises(ConfigurationError, match="own"):
        lake.sql("FROM own")


def test_a_connection_with_an_error_is_not_lent_again_nor_one_of_a_former_duckdb(lake: Lake) -> None:
    with lake.catalog.borrowed() as first:
        pass
    with lake.catalog.borrowed() as again:
        assert again is first
        with lake.catalog.borrowed() as second:
            assert second is not first
    with pytest.raises(RuntimeError), lake.catalog.borrowed() as third:
        raise RuntimeError("no")
    assert third not in lake.catalog._idle._idle
    with pytest.raises(duckdb.Error, match="closed"):
        third.execute("SELECT 1")
    with lake.catalog.borrowed() as former:
        lake.catalog.renew()
        assert former.execute("SELECT count(*) FROM targets").fetchall() == [(0,)]
    assert lake.catalog._idle._idle == []
    with lake.catalog.borrowed() as now:
        assert now is not former
    lake.close()
    assert lake.catalog._idle._idle == []
