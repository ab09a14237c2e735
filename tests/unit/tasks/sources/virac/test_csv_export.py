"""The view virac and its export: the same files as the per-source extractor writes, from the lake."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.processes import child_environment

from benchmarks.virac_per_source import HEADER, extract_tile
from deployments.sandbox import virac as sandbox
from lake.cli import main
from lake.commit.commit import commit
from lake.commit.ledger import Attempt
from lake.commit.staging import stage
from lake.errors import ConfigurationError, SchemaError
from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.sources.virac import csv_export, csv_lines
from tasks.sources.virac.csv_export import export_virac_csv, path_of, read_ids
from tasks.sources.virac.csv_lines import _decimals
from tasks.sources.virac.tile import open_tile
from tasks.sources.virac.tiles import LEFT_OUT, NAME, ORIGIN, RELEASE, Extraction, Selection

PIXELS = {1024: 9_000_000, 512: 2_400_001, 256: 600_003}
TINY: dict[str, Any] = {"n_sources": 60, "n_pawprints": 130, "epochs": (60, 90), "seed": 5}


def tile(folder: Path, nside: int = 1024, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / sandbox.tile_name(nside, PIXELS[nside])
    sandbox.write_tile(path, nside=nside, pixel=PIXELS[nside], **(TINY | more))
    return path


def put(catalog: Catalog, path: Path, cut: Selection | None = None) -> None:
    """Bring a tile into the lake."""
    granule = path.stem
    with open_tile(path) as opened:
        extraction = Extraction(opened, granule, cut or Selection())
        attempt = Attempt(
            NAME,
            RELEASE,
            granule,
            status="done",
            started_at=datetime.now(UTC),
            n_targets=0,
            seconds=0.0,
            parameters="{}",
        )
        manifest = stage(
            catalog.storage.staging / granule,
            attempt,
            extraction.tables(),
            ORIGIN.band_units,
            lightcurves=extraction.lightcurves(),
            afterwards=extraction.statistics,
        )
    commit(catalog, manifest)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(text: bytes) -> list[list[str]]:
    return list(csv.reader(text.decode("ascii").splitlines()))


def _fill(catalog: Catalog) -> None:
    with TemporaryDirectory() as folder:
        put(catalog, tile(Path(folder)))


@pytest.fixture
def held(prepared: Callable[[Callable[[Catalog], None]], Catalog], request: pytest.FixtureRequest) -> Lake:
    """A lake that has a tile."""
    prepared(_fill)
    lake: Lake = request.getfixturevalue("lake")
    return lake


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    tile(tmp_path / "tiles")
    extract_tile(tmp_path / "tiles" / "n1024_9000000.hdf5", tmp_path / "expected")
    return files(tmp_path / "expected")


@pytest.mark.parametrize("source", ["../../../x", "/etc/x", "1\x00", "", "123 456", "٣٣٣"])
def test_no_id_leads_out_of_the_folder(source: str) -> None:
    with pytest.raises(ConfigurationError, match="no id of a VIRAC source"):
        path_of(source)


@pytest.mark.parametrize(("nside", "filters"), [(1024, "S2"), (512, "padded"), (256, "str")])
def test_files_are_those_of_the_extractor_byte_for_byte(
    catalog: Catalog, lake: Lake, tmp_path: Path, nside: int, filters: str
) -> None:
    path = tile(tmp_path / "tiles", nside, filters=filters)
    put(catalog, path)
    done = extract_tile(path, tmp_path / "expected")
    written = export_virac_csv(lake, tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "expected")
    assert (written.files, written.rows, written.bytes) == (done["files"], done["rows"], done["bytes"])
    assert written.files > 50
    made = b"".join(files(tmp_path / "out").values())
    assert made.count(b",0,Ks\n") > 10, "no non-detections"
    assert all(b",1," + band.encode() + b"\n" in made for band in csv_lines.BANDS)


def test_shuffled_ids_give_the_same_lines_in_the_order_of_the_ids(catalog: Catalog, lake: Lake, tmp_path: Path) -> None:
    path = tile(tmp_path / "tiles", catindexid="shuffled")
    put(catalog, path)
    extract_tile(path, tmp_path / "expected")
    export_virac_csv(lake, tmp_path / "out")
    made, expected = files(tmp_path / "out"), files(tmp_path / "expected")
    assert made.keys() == expected.keys()
    with h5py.File(path) as opened:
        catindexid = opened["catIndex/catindexid"][:].tolist()
        mjd = dict(zip(catindexid, (f"{one:.6f}" for one in opened["catIndex/mjdobs"][:].tolist()), strict=True))
        names = opened["sourceList/sourceid"][:].astype(str).tolist()
        found = dict(zip(names, opened["timeSeries/catindexid"][:], strict=True))
        covered = dict(zip(names, opened["timeSeries/catindexidcovered"][:], strict=True))
    for name, text in made.items():
        assert sorted(lines(text)) == sorted(lines(expected[name]))
        seen, every = found[Path(name).stem].tolist(), covered[Path(name).stem].tolist()
        order = sorted(seen) + sorted(set(every) - set(seen))
        assert [line[0] for line in lines(text)[1:]] == [mjd[one] for one in order]


@pytest.mark.long
def test_several_tiles_in_small_lots(
    catalog: Catalog, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nside in PIXELS:
        path = tile(tmp_path / "tiles", nside, n_sources=20)
        put(catalog, path)
        extract_tile(path, tmp_path / "expected")
    for name, value in {"_SOURCES": 7, "_GRANULES": 1, "_LISTED": 5, "_PIECES": 2}.items():
        monkeypatch.setattr(csv_export, name, value)
    monkeypatch.setattr(csv_lines, "_ROWS", 100)
    told: list[int] = []
    export_virac_csv(lake, tmp_path / "out", progress=lambda written: told.append(written.files))
    expected = files(tmp_path / "expected")
    assert files(tmp_path / "out") == expected
    assert len(told) > 6
    assert told == sorted(told)
    ids = [Path(name).stem for name in expected]
    export_virac_csv(lake, tmp_path / "named", [*ids, ids[0]])
    assert files(tmp_path / "named") == expected


def test_an_export_goes_on_where_it_was(held: Lake, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ids = sorted(Path(name).stem for name in expected)
    export_virac_csv(held, out, ids[:10])
    assert len(files(out)) == 10
    half, foreign, empty = (out / path_of(one) for one in ids[:3])
    half.write_bytes(half.read_bytes()[:1000])
    foreign.write_bytes(foreign.read_bytes().replace(b"ks_mag", b"ks_MAG", 1))
    empty.write_bytes(b"")
    untouched = out / path_of(ids[5])
    os.utime(untouched, (1e9, 1e9))
    left = out / ".part-of-one-that-was-killed"
    left.write_bytes(b"mjd")
    os.utime(left, (1e9, 1e9))
    written = export_virac_csv(held, out)
    assert (written.files, written.kept) == (len(ids) - 7, 7)
    assert files(out) == expected
    assert untouched.stat().st_mtime == 1e9
    assert export_virac_csv(held, out).files == 0
    assert export_virac_csv(held, out, ids[:10], again=True).files == 10
    assert untouched.stat().st_mtime > 1e9


def test_a_write_that_fails_leaves_whole_files_only(
    held: Lake, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Path.write_bytes, [20]

    def full(path: Path, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            write(path, data[:100])
            raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(ConfigurationError, match="No space left on device"):
            export_virac_csv(held, tmp_path / "out")
    made = files(tmp_path / "out")
    assert 0 < len(made) < len(expected)
    assert made.items() <= expected.items()
    export_virac_csv(held, tmp_path / "out")
    assert files(tmp_path / "out") == expected


@pytest.mark.crash
def test_a_killed_export_restarts(held: Lake, expected: dict[str, bytes], tmp_path: Path, on_disk: None) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path; from lake.query import Lake\n"
        "from tasks.sources.virac import csv_export\n"
        "put = csv_export._Export._put\n"
        "csv_export._Export._put = lambda *given: (time.sleep(0.05), put(*given))[1]\n"
        "with Lake(sys.argv[1]) as lake: csv_export.export_virac_csv(lake, Path(sys.argv[2]))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(held.storage.root), str(out)], env=child_environment(), cwd=Path.cwd()
    )
    try:
        until = time.monotonic() + 60
        while not list(out.glob("*/*/*.csv")):
            assert time.monotonic() < until, "nothing was written"
            assert child.poll() is None
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    made = {name: text for name, text in files(out).items() if not name.startswith(".part-")}
    assert 0 < len(made) < len(expected)
    assert made.items() <= expected.items()
    written = export_virac_csv(held, out)
    assert (written.files, written.kept) == (len(expected) - len(made), len(made))
    assert {name: text for name, text in files(out).items() if name.endswith(".csv")} == expected


def test_sources_that_are_unknown_or_left_out(held: Lake, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = Path(next(iter(expected))).stem
    without = held.sql("SELECT source_id FROM sources WHERE left_out IS NOT NULL ORDER BY ALL")["source_id"].to_pylist()
    with pytest.raises(ConfigurationError, match=f"source {without[0]} is without a light curve .* {LEFT_OUT}"):
        export_virac_csv(held, out, [good, without[0]])
    for unknown in ("9000000999999", "99", "9" * 30, "-1", "it's"):
        with pytest.raises(ConfigurationError, match=f"source {unknown} is unknown"):
            export_virac_csv(held, out, [good, unknown])
    with pytest.raises(ConfigurationError, match=r"7 sources are unknown .*: 1, 2, 3, 4, 5 and 2 more"):
        export_virac_csv(held, out, [str(n) for n in range(1, 8)])
    assert not out.exists()
    assert export_virac_csv(held, out, []).files == 0


def test_a_source_that_left_the_pixel_of_its_id_is_found(
    held: Lake, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_export, "_pixel", lambda source: 0)
    ids = [Path(name).stem for name in expected]
    assert export_virac_csv(held, tmp_path / "out", ids).files == len(ids)


def test_a_condition_narrows_the_choice(held: Lake, expected: dict[str, bytes], tmp_path: Path) -> None:
    ids = sorted(Path(name).stem for name in expected)
    where = f"source_id IN ('{ids[0]}', '{ids[1]}') OR pm_ra IS NULL"
    export_virac_csv(held, tmp_path / "all", where=where)
    assert {Path(name).stem for name in files(tmp_path / "all")} == set(ids[:2])
    export_virac_csv(held, tmp_path / "named", ids[1:5], where=where)
    assert [Path(name).stem for name in files(tmp_path / "named")] == [ids[1]]
    for chosen in (None, ids):
        with pytest.raises(ConfigurationError, match="the SQL failed"):
            export_virac_csv(held, tmp_path / "out", chosen, where="no_such_column > 1")


def test_a_lake_without_virac(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no VIRAC light curves"):
        export_virac_csv(lake, tmp_path / "out")


def test_of_several_releases_the_one_that_archives_names(
    held: Lake, expected: dict[str, bytes], tmp_path: Path
) -> None:
    cursor = held.catalog.cursor()
    cursor.execute("INSERT INTO ledger SELECT * REPLACE ('other' AS release) FROM ledger")
    with pytest.raises(ConfigurationError, match=r"releases other, ts_tables .add: --release NAME"):
        export_virac_csv(held, tmp_path / "out")
    assert export_virac_csv(held, tmp_path / "asked", release=RELEASE).files == len(expected)
    cursor.execute(
        "INSERT INTO archives BY NAME SELECT 'virac' AS archive, 'ts_tables' AS release, '' AS title, '' AS endpoint, "
        "'UTC' AS time_scale, 'topocentre' AS time_frame, 'frozen' AS cadence, 'x' AS licence, 'x' AS acknowledgement"
    )
    assert export_virac_csv(held, tmp_path / "named").files == len(expected)


def test_the_command(
    held: Lake, expected: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], on_disk: None
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        given = ("export", "virac-csv", "--lake", held.storage.root, "--to", tmp_path / "out", *arguments)
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in given])
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    ids = sorted(Path(name).stem for name in expected)
    listed = tmp_path / "ids.txt"
    listed.write_text(f"# chosen\n{ids[2]}\n\n {ids[3]} \r\n")
    code, out, _ = run("--source", ids[0], "--source", ids[1], "--sources-file", listed)
    assert (code, out.split(" in ")[0].split(",")[0]) == (0, f"4 light curves written to {tmp_path / 'out'}")
    assert {Path(name).stem for name in files(tmp_path / "out")} == set(ids[:4])
    code, out, _ = run()
    assert code == 0
    assert out.startswith(f"{len(ids) - 4} light curves")
    assert "4 were there already" in out
    assert files(tmp_path / "out") == expected
    code, _, err = run("--source", "12")
    assert code == 2
    assert err.startswith("lightlake: source 12 is unknown")
    code, _, err = run("--sources-file", tmp_path / "nothing")
    assert code == 2
    listed.write_text("objid\n1\n")
    with pytest.raises(ConfigurationError, match="'objid' is no id of a VIRAC source"):
        read_ids(listed)


def test_a_folder_that_cannot_be_written_to(held: Lake, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot write to"):
        export_virac_csv(held, tmp_path / "out")


def test_numbers_are_rounded_as_python_does() -> None:
    rng = np.random.default_rng(1)
    ties = (np.arange(-4000, 4000) * 2 + 1) / np.float32(2**5)  # such as 0.03125, half way between two of 4 decimals
    values = np.concatenate(
        [
            ties.astype("f4"),
            rng.uniform(-20, 20, 50_000).astype("f4"),
            rng.integers(0, 2**32, 50_000, dtype="u4").view("f4"),
            np.nextafter(np.float32(16), np.float32([0, 20])),
            np.array([0.0, -0.0, -1e-9, 99999.99, 99999.996, 1e5, 3e38, np.inf, -np.inf, np.nan, 0.99995], "f4"),
        ]
    )
    values[np.isnan(values)] = np.nan  # a signalling one is not what NULL becomes
    for part in (values, values[np.abs(values) < 1000], values[:0], np.float32([np.nan, 3])):
        made = [bytes(row).replace(b"\0", b"").decode() for row in _decimals(part)]
        assert made == [f"{value:.4f}".replace("nan", "") for value in part.tolist()]


def test_the_view_has_the_columns_of_the_file_and_null_where_it_is_empty(
    held: Lake, expected: dict[str, bytes]
) -> None:
    name, text = next((name, text) for name, text in expected.items() if b",0,Ks\n" in text)
    source = Path(name).stem
    header, *rows = lines(text)
    found = held.sql("SELECT * FROM virac WHERE source_id = ?", [source])
    assert found.column_names == ["source_id", "release", "hpx29", *header]
    assert ",".join(header) + "\n" == HEADER
    assert set(found["release"].to_pylist()) == {RELEASE}
    places = {"mjd": 6, "seeing": 3, "exptime": 2, "skylevel": 2, "detected": 0, "filter": None}

    def shown(name: str, value: Any) -> str:
        places_of = places.get(name, 4)
        return "" if value is None else value if places_of is None else f"{value:.{places_of}f}"

    assert sorted([shown(name, row[name]) for name in header] for row in found.to_pylist()) == sorted(rows)
    kept = found.to_pylist()
    assert all(row["chi"] is None for row in kept if not row["detected"])
    assert {row["j_mag"] is None for row in kept if row["filter"] == "Ks"} == {True}


def test_a_magnitude_is_exact_in_the_lake_and_rounded_in_the_file(
    held: Lake, expected: dict[str, bytes], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "tiles" / "n1024_9000000.hdf5") as opened:
        row = max(range(TINY["n_sources"]), key=lambda n: len(opened["timeSeries/catindexid"][n]))
        source = str(opened["sourceList/sourceid"][row])
        number, stored = int(opened["timeSeries/catindexid"][row][0]), opened["timeSeries/hfad_mag"][row][0]
    found = held.sql(
        "SELECT mag FROM lightcurves WHERE source_id = ? AND exposure_id = ?", [source, f"n1024_9000000/{number}"]
    )
    assert found["mag"].to_pylist() == [float(stored)]
    assert f"{float(stored):.4f}" in lines(expected[str(path_of(source))])[1]
    assert float(stored) != round(float(stored), 4)


def test_an_exposure_that_is_not_there_leaves_its_columns_empty(held: Lake, tmp_path: Path) -> None:
    held.catalog.cursor().execute("DELETE FROM exposures WHERE exposure_id LIKE '%7'")
    n = "SELECT count(*) FROM {} WHERE {}"
    (lost,) = held.catalog.cursor().execute(n.format("virac", "seeing IS NULL AND exptime IS NULL")).fetchall()
    assert lost == held.catalog.cursor().execute(n.format("lightcurves", "exposure_id LIKE '%7'")).fetchall()[0]
    export_virac_csv(held, tmp_path / "out")
    made = b"".join(files(tmp_path / "out").values())
    assert made.count(b",,,,") > 0
    assert sum(line.split(b",")[11:15] == [b""] * 4 for line in made.splitlines()) == lost[0]


def test_rows_that_name_no_exposure_are_written_too(held: Lake, expected: dict[str, bytes], tmp_path: Path) -> None:
    held.catalog.cursor().execute("UPDATE lightcurves SET exposure_id = NULL WHERE NOT detected")
    export_virac_csv(held, tmp_path / "out")
    for name, text in files(tmp_path / "out").items():
        without = [line[:11] + [""] * 4 + line[15:] if line[17] == "0" else line for line in lines(expected[name])]
        assert sorted(lines(text)) == sorted(without)


def test_an_exposure_of_several_times_is_an_error(held: Lake, tmp_path: Path) -> None:
    held.catalog.cursor().execute(
        "UPDATE lightcurves SET mjd = mjd + 0.1 WHERE source_id = (SELECT min(source_id) FROM lightcurves)"
    )
    with pytest.raises(SchemaError, match="has rows of several times"):
        export_virac_csv(held, tmp_path / "out")


@pytest.mark.parametrize("column", ["hpx29", "source_id", "release"])
def test_conditions_reach_the_scan(held: Lake, column: str) -> None:
    value = held.sql(f"SELECT {column} AS value FROM lightcurves LIMIT 1")["value"][0].as_py()
    literal = f"'{value}'" if isinstance(value, str) else str(value)
    plan = held.sql(f"EXPLAIN SELECT mjd FROM virac WHERE {column} = {literal}")["explain_value"][0].as_py()
    assert f"{column}={literal}" in plan, plan
    assert "FILTER" not in plan.replace("Filters", ""), plan


def test_a_join_through_sources_has_the_same_rows(held: Lake) -> None:
    ask: Callable[[str], list[Any]] = lambda query: held.sql(query).to_pylist()  # noqa: E731
    source = ask("SELECT source_id FROM virac LIMIT 1")[0]["source_id"]
    direct = ask(f"SELECT * FROM virac WHERE source_id = '{source}' ORDER BY mjd, filter")
    joined = ask(
        "SELECT virac.* FROM sources JOIN virac USING (release, hpx29, source_id) "
        f"WHERE sources.archive = 'virac' AND source_id = '{source}' ORDER BY mjd, filter"
    )
    assert joined == direct
    assert len(direct) > 20


def test_a_source_with_no_rows_in_the_bands_that_were_kept(held: Lake, tmp_path: Path) -> None:
    held.catalog.cursor().execute("DELETE FROM lightcurves")
    written = export_virac_csv(held, tmp_path / "out")
    assert written.rows == 0
    assert set(files(tmp_path / "out").values()) == {HEADER.encode()}
