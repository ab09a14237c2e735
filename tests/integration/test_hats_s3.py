"""Collections on S3: the same rows as on a disk, and no collection before all of it is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import hats

from lake.errors import ConfigurationError
from lake.export import hats_files
from lake.export.hats import export_collection
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage, path_of, read_parquet

pytestmark = pytest.mark.server


def test_a_collection_on_s3(s3_lake: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = tmp_path / "lake", f"{s3_lake.removesuffix('/lake')}/collection"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    hats.fill(catalog)
    catalog.close()
    to, here = path_of(url), tmp_path / "here"

    def rows(folder: Any) -> list[dict[str, Any]]:
        found = sorted(folder.glob("targets/dataset/Norder=*/Dir=*/Npix=*.parquet"))
        rows: list[dict[str, Any]] = pa.concat_tables(map(read_parquet, found)).sort_by("target_id").to_pylist()
        return rows

    with Lake(root, load_settings(url=str(root))) as lake:
        with monkeypatch.context() as patch:
            patch.setattr(hats_files, "write_properties", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                export_collection(lake, url, rows_per_file=300)
        assert not (to / "collection.properties").exists()
        assert (to / "targets" / "partition_info.csv").exists()
        done = export_collection(lake, url, rows_per_file=300)
        assert done.kept > done.partitions > 2
        export_collection(lake, here, rows_per_file=300)
        assert (to / "collection.properties").exists()
        assert not (to / "plan.json").exists()
        assert rows(to) == rows(here)
        with pytest.raises(ConfigurationError, match="--again"):
            export_collection(lake, url)
        assert export_collection(lake, url, sample="field", again=True).targets == len(hats.FIELD)
        with (to / "targets" / "dataset" / "_metadata").open("rb") as file:
            assert pq.read_metadata(file).num_rows == len(rows(to)) == len(hats.FIELD)
