"""How a lake's DuckDB is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

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
