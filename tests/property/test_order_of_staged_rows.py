"""Staged rows are in the order that Arrow's sort gives, whether the first key decides it or not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from lake.commit.staging import stage_files
from lake.model.schema import TABLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    return UPath(tmp_path_factory.mktemp("staged"))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 300]), st.sampled_from([1, 3, 2000, 2**60]))
def test_staged_rows_are_sorted_by_all_keys(folder: UPath, seed: int, n: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    made = {}
    for name in ("sources", "statistics"):
        spec = TABLES[name]
        columns = {
            "hpx29": rng.integers(0, places, n),
            "source_id": [f"s{number}" for number in rng.integers(0, 3, n)],
            "band": rng.choice(["g", "r"], n),
            "granule": [f"row {row}" for row in range(n)],
        }
        made[name] = pa.table({key: value for key, value in columns.items() if key in spec.names})
    expected = {name: table.sort_by([(key, "ascending") for key in TABLES[name].sort]) for name, table in made.items()}
    files = stage_files(folder, made)
    assert [file.table for file in files] == ["sources", "statistics"]
    for file in files:
        assert pq.read_table(folder / file.name)["granule"].equals(expected[file.table]["granule"])
