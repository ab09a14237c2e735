"""The notebook of the documentation runs from its first cell to its last, against simulated archives."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import other_python
from nbclient import NotebookClient

from deployments.sandbox.server import Sandbox

pytestmark = [pytest.mark.server, pytest.mark.long]

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    assert not any(cell.get("outputs") for cell in book.cells), "it is kept without what it printed"
    places = [(63.37407, -69.22627), (166.1138, 38.2088)]
    archives = ["ztf", "tess_kepler"]
    with Sandbox.start(tmp_path / "archives", archives=archives, seed=20210126, scale=0.1, targets=places) as box:
        for name, endpoint in box.endpoints.items():
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", endpoint)
        monkeypatch.setenv("LIGHTLAKE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("LSDB_PYTHON", other_python.python())
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said, shown = {}, {}
    for number, cell in enumerate(book.cells):
        for output in cell.get("outputs", ()):
            said[number] = said.get(number, "") + output.get("text", "")
            shown[number] = output.get("data", {}).get("text/html", "")
    everything = "\n".join(said.values())
    assert "Traceback" not in everything
    first, *_ = (text for text in said.values() if text.startswith("TessLightCurve"))
    name, n, unit, *_ = first.split()
    assert (name, int(n) > 100, unit) == ("TessLightCurve", True, "electron")
    assert any(text.startswith("mJy tdb ") for text in said.values())
    assert sum(int(n) for n in re.findall(r"', (\d+)\)", next(text for text in said.values() if "[(" in text))) > 100
    (opened,) = (text for text in said.values() if "['Mrk 421', 'WASP-126']" in text)
    assert int(opened.split("]")[1]) > 1000
    # The lake, and a light curve with its figure.
    assert sum("<table" in text for text in shown.values()) >= 2
    assert any("<svg" in text for text in shown.values())
