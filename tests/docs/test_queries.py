"""The queries of docs/queries.md run as they are written, on a small lake."""

from __future__ import annotations

import re
from pathlib import Path

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


def test_a_confined_query(folder: Path) -> None:
    (code,) = blocks("docs/queries.md", "python", "Reading only")
    names: dict[str, object] = {"query_of_a_stranger": "FROM targets"}
    exec(compile("import lake\n" + code, "docs/queries.md", "exec"), names)
    assert len(names["rows"]) == 3  # type: ignore[arg-type]
