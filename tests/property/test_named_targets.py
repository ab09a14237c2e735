"""Whatever names a list has, each of its rows is found or bad, exactly once, and what is kept finds it again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from helpers.names import Services
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake.commit.targets import add_targets
from lake.query import Lake
from tasks.samples.by_name import Names, names_given, read_list
from tasks.samples.target_file import TargetFile

KNOWN = [
    "3C 273",
    "3c273",
    "PG 1226+023",
    "Eta Car",
    "k Tau",
    "K Tau",
    "NGC 6079",
    "NGC 3642",
    "GJ 699",
    "NAME Nowhere",
]
HOSTILE = [
    "'; DROP TABLE targets; --",
    '"',
    "''",
    "<b>&amp;</b>]]>",
    "</TD></TR>",
    "a\nb",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "\ufffe",
    "x" * 500,
    "%00%0a?#&",
    "α Cen",
    "12 34 56.7 +12 34 56",
    "SDSS J015957.64+003310.4",
    "nan",
    "",
]
ANY = st.one_of(
    st.sampled_from(KNOWN), st.sampled_from(HOSTILE), st.text(max_size=12), st.text("3C 27+-.J0123456789", max_size=24)
)
FEW = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(read: TargetFile, n: int) -> None:
    lines = [row.line for row in read.bad_rows]
    assert len(set(lines)) == len(lines)
    assert read.targets.num_rows + len(lines) == n
    assert all(row.reason for row in read.bad_rows)
    assert read.targets["ra"].null_count == read.targets["dec"].null_count == 0
    assert read.aliases is not None
    assert set(read.aliases["row"].to_pylist()) == set(range(read.targets.num_rows))


@given(names=st.lists(ANY, min_size=1, max_size=8))
@FEW
def test_names_that_a_command_is_given(services: Services, tmp_path: Path, names: list[str]) -> None:
    read = Names(services.settings(tmp_path)).located(names_given(names))
    check(read, len(names))
    good = [name for i, name in enumerate(names, 1) if i not in {row.line for row in read.bad_rows}]
    assert read.targets["name"].to_pylist() == [name.strip() for name in good]


@given(names=st.lists(ANY.filter(lambda name: "\ud800" not in name and name.isprintable()), min_size=1, max_size=8))
@FEW
def test_names_in_a_file(services: Services, tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "names.parquet"
    pq.write_table(pa.table({"name": pa.array(names, pa.string())}), path)
    read = read_list(path, Names(services.settings(tmp_path)))
    check(read, len(names))
    numbers = read.targets["row_in_catalogue"].to_pylist()
    assert sorted([*numbers, *(row.line for row in read.bad_rows)]) == list(range(1, len(names) + 1))


@given(names=st.lists(st.sampled_from(KNOWN), min_size=1, max_size=4))
@settings(FEW, max_examples=3)
def test_what_is_kept_is_found_again(services: Services, lake: Lake, names: list[str]) -> None:
    asked = services.settings(Path(str(lake.storage.root)))
    first = Names(asked, lake).located(names_given(names))
    add_targets(lake.catalog, first.targets, "s", aliases=first.aliases)
    for name in first.targets["name"].to_pylist():
        lake.target_id(name)
    kept = lake.sql("FROM aliases ORDER BY ALL")
    again = Names(asked, lake).located(names_given(names))
    places = ["name", "ra", "dec", "row_in_catalogue"]
    assert again.targets.select(places) == first.targets.select(places)
    assert [row.line for row in again.bad_rows] == [row.line for row in first.bad_rows]
    add_targets(lake.catalog, again.targets, "s", aliases=again.aliases)
    assert lake.sql("FROM aliases ORDER BY ALL") == kept
