"""`lightlake plot`, of one target and of a sample."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.figures import figure
from helpers.granules import committed, positions, rows_of
from helpers.processes import Run

from lake.commit.targets import add_targets
from lake.store.catalog import Catalog
from tasks.analysis.figures import gallery

NAMES = ["M 87", "<b>x</b>", "../../etc", "m 87", "x" * 300]


def _fill(catalog: Catalog) -> None:
    ra, dec = positions(range(len(NAMES)))
    add_targets(catalog, pa.table({"name": NAMES, "ra": ra, "dec": dec, "redshift": [0.1] * len(NAMES)}), "five")
    committed(catalog, range(4), "g0")


@pytest.fixture
def url(prepared: Callable[[Callable[[Catalog], None]], Catalog]) -> str:
    return str(prepared(_fill).storage.root)


def test_one_target_by_any_form(url: str, run: Run, tmp_path: Path) -> None:
    done = run("plot", NAMES[0], "--bad", "--to", tmp_path / "x.html", "--lake", url)
    assert (done.code, done.out.splitlines()[0]) == (0, "6 measurements. Drawn: 4 good; 2 not good.")
    (data,) = [rows for name, rows in figure(tmp_path / "x.html")["datasets"].items() if name.startswith("panel")]
    assert sorted((row["x"], row["y"]) for row in data) == sorted((mjd, flux) for _, mjd, flux in rows_of(0, 1))
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF"), ("json", b"{")):
        assert run("plot", NAMES[0], "--to", tmp_path / f"x.{kind}", "--lake", url).code == 0
        assert (tmp_path / f"x.{kind}").read_bytes().startswith(start)
    said = json.loads((tmp_path / "x.json").read_text())["usermeta"]["cite"]
    assert any(line.startswith("ztf DR1 ") and "Acknowledgement: " in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["M 87", "--to", "x.gif"], "end it in .html, .png, .svg, .pdf or .json"),
        (["M 87", "--to", "x.png", "--clip", "0"], "--clip cannot be 0"),
        (["M 87", "--to", "x.png", "--mean", "nan"], "--mean cannot be nan"),
        (["M 87", "--to", "x.png", "--magnitudes", "--normalised"], "magnitudes are not divided"),
        (["--to", "x.png"], "give a target, or --sample"),
        (["M 87", "--sample", "five", "--to", "x"], "give a target, or --sample"),
        (["--sample", "six", "--to", "x"], "unknown sample 'six'"),
        (["x" * 300, "--to", "x.png"], "no measurements"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(
    url: str, run: Run, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("plot", *arguments, "--lake", url)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_sample_is_drawn_once_and_again_where_it_changed(
    url: str, catalog: Catalog, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", workers)
    monkeypatch.setattr(gallery, "_A_PROCESS", 1)
    folder = tmp_path / "figures"
    assert "5 figures drawn" in run("plot", "--sample", "five", "--to", folder, "--lake", url).out
    monkeypatch.setattr(gallery, "_A_PROCESS", 100)  # the rest in this process
    pages = sorted(path.name for path in folder.glob("*.html"))
    assert len(pages) == 6
    assert "M_87.html" in pages
    assert all(re.fullmatch(r"[A-Za-z0-9.+_-]+", name) for name in pages), "inside the folder, whatever a name holds"
    assert sorted(path.stem for path in (folder / "thumbnails").iterdir()) == [
        name.removesuffix(".html") for name in pages if name != "index.html"
    ]
    index = (folder / "index.html").read_text()
    assert index.count("<tr>") == 6
    assert "<b>x</b>" not in index
    assert 'src="thumbnails/M_87.svg"' in index

    before = {name: (folder / name).stat().st_mtime_ns for name in pages}
    assert "0 figures drawn, 5 were up to date" in run("plot", "--sample", "five", "--to", folder, "--lake", url).out
    assert {name for name in pages if (folder / name).stat().st_mtime_ns != before[name]} == {"index.html"}

    committed(catalog, {1: 2}, "g1")
    (folder / "M_87.html").unlink()
    assert "2 figures drawn, 3 were up to date" in run("plot", "--sample", "five", "--to", folder, "--lake", url).out
    assert (folder / "M_87.html").exists()

    assert (
        "5 figures drawn" in run("plot", "--sample", "five", "--to", folder, "--lake", url, "--scale", "symlog").out
    ), "they look different"


@pytest.mark.parametrize(("kind", "workers"), [("png", "1"), ("json", "2")])
def test_a_target_without_measurements_stops_no_other(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, workers: str
) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", workers)
    folder = tmp_path / "figures"
    done = run("plot", "--sample", "five", "--format", kind, "--to", folder, "--lake", url)
    assert (done.code, "5 figures drawn" in done.out) == (0, True), done.err
    assert len(list(folder.glob(f"*.{kind}"))) == 5 + (kind == "json")  # figures.json says what is drawn
    if kind == "json":
        (empty,) = folder.glob("xxx*.json")
        assert json.loads(empty.read_text())["usermeta"]["caption"] == ["No measurements.", "No archive was asked."]
