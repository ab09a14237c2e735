"""What an archive may be called: DuckDB itself is asked whether readers of plain folders get the name back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lake.errors import ConfigurationError
from lake.settings import load_settings
from tasks.sources import heasarc
from tasks.sources.base import wrong_name
from tasks.sources.icecube import archive as icecube
from tasks.sources.registry import REGISTRY, check_parameters, expand, find, known

# Words that have been a type's value in some reader of Hive folders, or may become one.
WORDS = ("nan", "true", "false", "today", "now", "none", "nil", "ninf", "t", "e1", "jan", "default", "utc", "x" * 48)

TYPED = ("null", "epoch", "inf", "infinity")


def read_back(root: Path, name: str) -> list[tuple[object, str]]:
    """Read a folder archive=NAME as any client does: the name, and its type."""
    (root / f"archive={name}").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), root / f"archive={name}" / "one.parquet")
    return duckdb.sql(
        f"SELECT archive, typeof(archive) FROM read_parquet('{root}/archive=*/*.parquet', hive_partitioning = true)"
    ).fetchall()


@given(name=st.one_of(st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True), st.sampled_from((*WORDS, *REGISTRY))))
@example("e1")
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_that_are_taken_come_back_from_plain_folders(tmp_path: Path, name: str) -> None:
    if wrong_name(name) is None:
        root = tmp_path / os.urandom(8).hex()
        assert read_back(root, name) == [(name, "VARCHAR")]


@pytest.mark.parametrize("name", TYPED)
def test_what_readers_take_for_something_else_is_refused(tmp_path: Path, name: str) -> None:
    assert read_back(tmp_path, name) != [(name, "VARCHAR")]
    assert wrong_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *TYPED,
        "NULL",
        "Gaia",
        "1",
        "2mass",
        "2020-01-01",
        "",
        " gaia",
        "a b",
        "a=b",
        "a/b",
        "..",
        "a\n",
        "a-b",
        "é",
        "x" * 49,
        "__HIVE_DEFAULT_PARTITION__",
    ],
)
def test_names_are_refused_where_they_are_configured(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be an archive's name"):
        heasarc.configured(load_settings(tables={"mine": {"name": name}}))
    with pytest.raises(ConfigurationError, match="cannot be an archive's name"):
        replace(icecube.ARCHIVE, name=name)


def test_a_former_name_of_an_archive_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("lightkurve") is REGISTRY["tess_kepler"]
    assert expand(["lightkurve", "tess_kepler"]) == ["tess_kepler"]
    asked = {"lightkurve": {"tess_cadence_s": 20}}
    assert check_parameters(asked, ["tess_kepler"]) == {"tess_kepler": {"tess_cadence_s": 20}}
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__LIGHTKURVE", "/data/mast")
    assert REGISTRY["tess_kepler"].endpoint_url(load_settings()) == "/data/mast"
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__TESS_KEPLER", "/data/newer")
    assert REGISTRY["tess_kepler"].endpoint_url(load_settings()) == "/data/newer"


def test_no_added_table_has_the_former_name_of_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_TABLES__LIGHTKURVE", '{"radius_arcsec": 60, "error_column": null}')
    with pytest.raises(ConfigurationError, match="LIGHTLAKE_TABLES__LIGHTKURVE"):
        known()
