"""The queries of README.md and docs/queries.md run as they are written, on a small lake."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.granules import committed, register

from lake.cli import main
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str, after: str) -> list[str]:
    """Return the code blocks of a page's section."""
    section = (ROOT / page).read_text().split(f"\n## {after}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0, arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a lake my-lake, which has a target of the examples."""
    catalog = Catalog(Storage.from_url(tmp_path / "my-lake"), load_settings(url=str(tmp_path / "my-lake")))
    catalog.create()
    register(catalog, range(3), "quasars")
    committed(catalog, range(2), "g0")
    catalog.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTLAKE_URL", "my-lake")
    command("targets", "rename", "T0", "TXS 0506+056")
    return tmp_path


def test_the_commands(folder: Path) -> None:
    (text,) = blocks("README.md", "bash", "Ask")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    assert len(lines) == 5
    for line in lines:
        command(*line[1:])
    assert pq.read_table("light_curves.parquet").num_rows > 0
    assert "TXS 0506+056" in Path("txs.html").read_text()
    assert {path.name for path in Path("figures").glob("*.html")} == {
        "index.html",
        "TXS_0506+056.html",
        "T1.html",
        "T2.html",
    }


def test_the_python_of_the_readme(folder: Path) -> None:
    (code,) = blocks("README.md", "python", "Ask")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["curve"]["mjd"].unit == "d"  # type: ignore[index]
    assert len(names["curve"]) == 6
    assert isinstance(names["around"], pa.Table)
    assert names["frame"]["status"].tolist() == []  # type: ignore[index]


def test_a_confined_query(folder: Path) -> None:
    (code,) = blocks("docs/queries.md", "python", "Reading only")
    names: dict[str, object] = {"query_of_a_stranger": "FROM targets"}
    exec(compile("import lake\n" + code, "docs/queries.md", "exec"), names)
    assert len(names["rows"]) == 3  # type: ignore[arg-type]
