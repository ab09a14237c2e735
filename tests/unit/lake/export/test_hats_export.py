"""A HATS collection has exactly the rows of one snapshot of the lake, in files that are there whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers import hats as helper
from helpers.granules import committed, register

from lake.commit.targets import add_targets
from lake.errors import ConfigurationError
from lake.export import hats_files
from lake.export.hats import Collection, export_collection
from lake.export.healpix import Pixel
from lake.query import Lake
from lake.science.sky import hpx29, match
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

NESTED = helper.NESTED.split(", ")
# So few that pixels are divided where targets are many; and of the field alone, so few that it is read in parts.
ROWS, FEW_ROWS = 350, 200


@pytest.fixture(scope="module")
def filled(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake, for all tests that only read it."""
    root = tmp_path_factory.mktemp("edges") / "lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root), duckdb_threads=1))
    helper.fill(catalog)
    catalog.close()
    return root


@pytest.fixture(scope="module")
def held(filled: Path) -> Iterator[Lake]:
    with Lake(filled, load_settings(url=str(filled), duckdb_threads=1)) as lake:
        yield lake


@pytest.fixture
def own(filled: Path, tmp_path: Path) -> Iterator[Lake]:
    """A copy of it that a test may write."""
    shutil.copytree(filled, tmp_path / "own")
    with Lake(tmp_path / "own", load_settings(url=str(tmp_path / "own")), writable=True) as lake:
        yield lake


@pytest.fixture(scope="module")
def exported(held: Lake, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collection]:
    to = tmp_path_factory.mktemp("collections") / "edges"
    return to, export_collection(held, to, rows_per_file=ROWS)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"))


def pixel_of(path: Path) -> Pixel:
    return Pixel(int(path.parts[-3].partition("=")[2]), int(path.stem.partition("=")[2]))


def flat(rows: pa.Table) -> list[dict[str, Any]]:
    """Measurements with their target, in the order of targets, then of their lists."""
    found = []
    for row in rows.sort_by("target_id").to_pylist():
        lists = row["lc"]
        assert len({len(one) for one in lists.values()}) == 1
        found += [
            {"target_id": row["target_id"], **dict(zip(lists, values, strict=True))}
            for values in zip(*lists.values(), strict=True)
        ]
    return found


def rows_of(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.ParquetFile(path).read() for path in files(folder))


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text(encoding="ascii").splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def in_field(lake: Lake) -> list[dict[str, Any]]:
    return helper.measured(lake, "target_id IN (SELECT target_id FROM labels WHERE sample = 'field')")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "out" / "edges"


def test_each_target_is_in_the_file_of_its_pixel_with_the_rows_of_the_lake(
    held: Lake, exported: tuple[Path, Collection]
) -> None:
    to, done = exported
    targets = held.sql("FROM targets ORDER BY hpx29")
    expected = helper.measured(held)
    assert (done.targets, done.rows, done.kept) == (targets.num_rows, len(expected), 0)
    assert done.partitions == len(files(to / "targets")) > 10
    for path in files(to / "targets"):
        found = pq.ParquetFile(path).read()
        pixel, healpix = pixel_of(path), found["_healpix_29"].to_numpy()
        assert path == to / "targets" / "dataset" / pixel.folder
        assert (np.diff(healpix) >= 0).all()
        assert ((healpix >= pixel.low) & (healpix < pixel.high)).all()
    rows = rows_of(to / "targets")
    assert sorted(rows["target_id"].to_pylist()) == sorted(targets["target_id"].to_pylist())
    assert [field.name for field in rows.schema.field("lc").type] == NESTED
    assert flat(rows) == expected
    assert {row["release"] for row in expected} == {"2"}, "a release that the lake does not show"
    assert {len(row) for row in rows["lc"].combine_chunks().field("mjd").to_pylist()} >= {0, 3, 21}
    named = {row["target_id"]: (row["labels"], row["samples"]) for row in rows.to_pylist()}
    assert set(named.values()) == {("edge", "edges"), ("edge; far", "edges; field")}
    for name in ("name", "ra", "dec"):
        by_id = dict(zip(rows["target_id"].to_pylist(), rows[name].to_pylist(), strict=True))
        assert by_id == dict(zip(targets["target_id"].to_pylist(), targets[name].to_pylist(), strict=True))


def test_the_margin_has_all_within_its_radius_of_a_pixel(held: Lake, exported: tuple[Path, Collection]) -> None:
    """A pair that a crossmatch is to find has both targets in the file, or the margin, of either."""
    to, done = exported
    main, margin = ({pixel_of(one): one for one in files(to / name)} for name in ("targets", "targets_10arcs"))
    seen = {
        pixel: set(pq.ParquetFile(path).read(["target_id"])["target_id"].to_pylist()) for pixel, path in main.items()
    }
    beyond, measured = 0, helper.measured(held)
    for pixel, path in margin.items():
        rows = pq.ParquetFile(path).read()
        assert not seen.get(pixel, set()) & set(rows["target_id"].to_pylist())
        seen.setdefault(pixel, set()).update(rows["target_id"].to_pylist())
        beyond += rows.num_rows
        ids = rows["target_id"].to_pylist()
        assert flat(rows) == [row for row in measured if row["target_id"] in ids]
    assert beyond == done.in_margins > 50
    assert set(margin) - set(main), "pixels without targets of their own have a margin, too"
    targets = held.sql("FROM targets")
    ra, dec, ids = (targets[name].to_numpy() for name in ("ra", "dec", "target_id"))
    i, j, separation = match(ra, dec, ra, dec, 9.99)
    across = 0
    for a, b in zip(i, j, strict=True):
        pixel = next(one for one in main if one.low <= hpx29(ra[a], dec[a]) < one.high)
        assert ids[b] in seen[pixel]
        across += not pixel.low <= hpx29(ra[b], dec[b]) < pixel.high
    assert across > 50
    assert separation.max() > 9


def test_units_and_provenance_are_in_the_metadata(held: Lake, exported: tuple[Path, Collection]) -> None:
    to, done = exported
    schema = pq.read_schema(to / "targets" / "dataset" / "_common_metadata")
    assert schema.equals(pq.read_schema(files(to / "targets")[0]))
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    nested = {one.name: one.metadata for one in schema.field("lc").type}
    assert nested["bmjd_tdb"][b"unit"] == b"d"
    assert nested["separation_arcsec"][b"unit"] == b"arcsec"
    assert nested["flux"][b"ucd"] == b"phot.flux"
    found = properties(to / "collection.properties")
    assert found["obs_collection"] == "edges"
    assert found["all_indexes"] == "target_id targets_target_id name targets_name"
    assert found["prov_progenitor"] == "bell 2; lamp 2"
    assert found["obs_ack"] == "Thank bell! Thank lamp!"
    assert int(found["lightlake_measurements"]) == done.rows
    source = json.loads((to / "provenance.json").read_text())
    assert source["snapshot_id"] == int(found["lightlake_snapshot_id"])
    assert [row["time_frame"] for row in source["archives"]] == ["geocentre", "geocentre"]
    assert sum("Thank bell!" in line or "Thank lamp!" in line for line in source["cite"]) == 2
    of_targets = properties(to / "targets" / "hats.properties")
    assert int(of_targets["hats_nrows"]) == done.targets
    assert properties(to / "targets_10arcs" / "hats.properties")["hats_margin_threshold"] == "10"


def test_the_summaries_name_every_file(held: Lake, exported: tuple[Path, Collection]) -> None:
    to, _ = exported
    for name in ("targets", "targets_10arcs"):
        there = files(to / name)
        lines = (to / name / "partition_info.csv").read_text().splitlines()
        assert lines[0] == "Norder,Npix"
        assert sorted(lines[1:]) == sorted(f"{pixel_of(one).order},{pixel_of(one).number}" for one in there)
        metadata = pq.read_metadata(to / name / "dataset" / "_metadata")
        paths = {metadata.row_group(n).column(0).file_path for n in range(metadata.num_row_groups)}
        assert paths == {one.relative_to(to / name / "dataset").as_posix() for one in there}
        assert metadata.num_rows == sum(pq.read_metadata(one).num_rows for one in there)


def test_the_indexes_lead_to_the_pixel_of_each_target(held: Lake, exported: tuple[Path, Collection]) -> None:
    to, _ = exported
    where = {
        row["target_id"]: (row["name"], pixel_of(path))
        for path in files(to / "targets")
        for row in pq.ParquetFile(path).read(["target_id", "name"]).to_pylist()
    }
    by_id = pq.ParquetFile(to / "targets_target_id" / "dataset" / "index" / "part.0.parquet").read()
    assert by_id["target_id"].to_pylist() == sorted(where)
    assert {row["target_id"]: Pixel(row["Norder"], row["Npix"]) for row in by_id.to_pylist()} == {
        target: pixel for target, (_, pixel) in where.items()
    }
    by_name = pq.ParquetFile(to / "targets_name" / "dataset" / "index" / "part.0.parquet").read().to_pylist()
    assert {row["name"]: Pixel(row["Norder"], row["Npix"]) for row in by_name} == {
        name: pixel for name, pixel in where.values() if name is not None
    }
    assert len(by_name) < len(where)


def test_a_part_of_the_lake(held: Lake, to: Path) -> None:
    done = export_collection(held, to, sample="field", archives=["bell"], good=True, margin_arcsec=0)
    rows = rows_of(to / "targets")
    assert done.targets == rows.num_rows == len(helper.FIELD)
    ids = ", ".join(map(str, rows["target_id"].to_pylist()))
    expected = helper.measured(held, f"archive = 'bell' AND good AND target_id IN ({ids})")
    assert flat(rows) == expected
    assert 0 < len(expected) == done.rows
    assert not (to / "targets_10arcs").exists()
    assert "all_margins" not in properties(to / "collection.properties")
    assert properties(to / "collection.properties")["prov_progenitor"] == "bell 2"


def test_a_stopped_export_is_no_collection_and_goes_on(
    own: Lake, to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = hats_files.write_rows, []

    def full(path: Path, *rest: Any) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(hats_files, "write_rows", full)
    with pytest.raises(OSError, match="No space"):
        export_collection(own, to, sample="field", rows_per_file=FEW_ROWS, workers=1)
    assert not to.exists()
    monkeypatch.undo()
    done = export_collection(own, to, sample="field", rows_per_file=FEW_ROWS)
    assert done.kept == 3
    assert flat(rows_of(to / "targets")) == in_field(own)
    assert [path.name for path in to.parent.iterdir()] == ["edges"], "nothing is left beside it"
    assert not list(to.rglob("*.part"))


def test_what_was_begun_of_another_snapshot_is_not_used(own: Lake, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(hats_files, "write_properties", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_collection(own, to, sample="field")
    add_targets(own.catalog, pa.table({"ra": [50.0], "dec": [50.0], "name": ["new"]}), "field")
    done = export_collection(own, to, sample="field")
    assert done.kept == 0
    assert "new" in rows_of(to / "targets")["name"].to_pylist()


def test_a_commit_meanwhile_is_not_seen(own: Lake, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(own.catalog, range(3), "field")
    before = in_field(own)
    write = hats_files.write_rows

    def commit(*arguments: Any) -> None:
        monkeypatch.setattr(hats_files, "write_rows", write)
        committed(own.catalog, range(3), "meanwhile")
        write(*arguments)

    monkeypatch.setattr(hats_files, "write_rows", commit)
    done = export_collection(own, to, sample="field", rows_per_file=FEW_ROWS, workers=1)
    assert len(in_field(own)) > len(before) == done.rows
    assert flat(rows_of(to / "targets")) == before


def test_a_collection_is_replaced_only_when_asked(held: Lake, to: Path) -> None:
    export_collection(held, to, sample="field")
    before = (to / "collection.properties").read_text()
    with pytest.raises(ConfigurationError, match="--again"):
        export_collection(held, to)
    assert (to / "collection.properties").read_text() == before
    assert export_collection(held, to, again=True).targets > len(helper.FIELD)
    assert [path.name for path in to.parent.iterdir()] == ["edges"]


def test_other_files_are_left_alone(held: Lake, to: Path) -> None:
    to.mkdir(parents=True)
    (to / "thesis.tex").write_text("")
    with pytest.raises(ConfigurationError, match="not empty"):
        export_collection(held, to, again=True)
    assert [path.name for path in to.iterdir()] == ["thesis.tex"]


def test_two_exports_to_a_folder_do_not_meet(held: Lake, to: Path) -> None:
    to.parent.mkdir(parents=True)
    with filelock.FileLock(to.parent / ".edges.part.lock"), pytest.raises(ConfigurationError, match="another export"):
        export_collection(held, to)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sample": "edge"}, "did you mean edges"),
        ({"archives": ["bel"]}, "did you mean bell"),
        ({"margin_arcsec": -1.0}, "margin"),
        ({"rows_per_file": 0}, "rows"),
    ],
)
def test_what_cannot_be_exported(held: Lake, to: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        export_collection(held, to, **wrong)
    assert not to.exists()


def test_a_lake_without_targets(lake: Lake, to: Path) -> None:
    with pytest.raises(ConfigurationError, match="no targets"):
        export_collection(lake, to)


def test_a_target_with_more_measurements_than_a_group(held: Lake, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.export.nested._GROUP_ROWS", 5)
    monkeypatch.setattr("lake.export.nested._BATCH_ROWS", 2)
    export_collection(held, to, rows_per_file=10_000)
    groups = [pq.read_metadata(path).num_row_groups for path in files(to / "targets")]
    assert max(groups) > 5
    assert flat(rows_of(to / "targets")) == helper.measured(held)
    counts = pc.list_value_length(rows_of(to / "targets")["lc"].combine_chunks().field("mjd")).to_pylist()
    assert max(counts) > 5
