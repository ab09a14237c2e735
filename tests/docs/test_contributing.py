"""The archive that CONTRIBUTING.md adds, pulled from: a newcomer's first one works as it is written."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from flows import local
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from tasks.pull import lake_at
from tasks.pull.report import PullReport
from tasks.sources.protocol import Request
from tasks.sources.registry import REGISTRY

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A web server of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_archive_of_the_page(
    catalog: Catalog, lake: Lake, settings: Settings, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    module = ModuleType("tiny")
    monkeypatch.setitem(sys.modules, "tiny", module)
    exec(compile(code, str(PAGE), "exec"), vars(module))
    monkeypatch.setitem(REGISTRY, "tiny", module.ARCHIVE)
    (tmp_path / "tiny.csv").write_text(
        "id,ra,dec,mjd,mag,mag_err\n"
        "7,10.0001,-30.0,59000.5,16.4,0.01\n7,10.0001,-30.0,59001.5,16.4,0.02\n8,50,5,59000,9,0.1\n"
    )
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__TINY", f"{served}/tiny.csv")
    monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
    add_targets(catalog, pa.table({"ra": [10.0, 200.0], "dec": [-30.0, 2.0], "name": ["A", "B"]}), "mine")
    report = local.pull(settings.url, Request("tiny"))
    lake_at.cache_clear()
    assert isinstance(report, PullReport)
    assert (report.asked, report.found, report.failed, report.rows) == (2, 1, 0, 2)
    rows = lake.light_curve("A").to_pylist()
    assert [row["mjd"] for row in rows] == [59000.5, 59001.5]
    # 16.4 mag AB is 1 mJy: 3631 Jy 10^(-0.4 m).
    assert [row["flux"] for row in rows] == pytest.approx([1.0, 1.0], rel=2e-3)
    assert rows[0]["separation_arcsec"] == pytest.approx(0.31, abs=0.01)
