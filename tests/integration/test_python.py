"""`import lightlake`: in scripts, in running event loops and in notebooks; what is in its way is said."""

from __future__ import annotations

import asyncio
import doctest
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from helpers.archives import PLACES
from helpers.granules import committed, register

import lightlake
from deployments.sandbox import papers
from deployments.sandbox.papers import Published
from deployments.sandbox.server import Sandbox
from flows import local
from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.samples.literature import LITERATURE

ROOT = Path(__file__).parents[2]
PAPER = "macleod16"


def _fill(catalog: Catalog) -> None:
    register(catalog, range(2), "quasars")
    committed(catalog, range(2), "g0")
    catalog.cursor().execute("UPDATE targets SET name = CASE name WHEN 'T0' THEN 'A' ELSE 'B' END")


@pytest.fixture
def my_lake(
    prepared: Callable[[Callable[[Catalog], None]], Catalog],
    sandbox: Sandbox,
    pull_settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The lake of the examples: two quasars, with light curves of one archive; and services for the rest."""
    papers.mount(sandbox, {LITERATURE[PAPER].bibcode: [Published("X", 150.0, 2.0), Published("Y", 151.0, 3.0)]})
    for name, url in sandbox.endpoints.items():
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", url)
    url = str(prepared(_fill).storage.root)
    (tmp_path / "my-lake").symlink_to(url)
    monkeypatch.chdir(tmp_path)
    return url


def python(code: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as a user does who has installed Lightlake."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *more])}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )


def test_the_examples_run(my_lake: str) -> None:
    finder = doctest.DocTestFinder()
    tests = finder.find(lightlake, globs={"lightlake": lightlake})
    assert {"lightlake", "lightlake._Samples.add", "lightlake._Samples.list"} <= {
        one.name for one in tests if one.examples
    }
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.tries > 10
    assert runner.failures == 0
    for name in ("open", "create", "pull", "refresh"):
        assert ">>> " in getattr(lightlake, name).__doc__


def test_the_import_is_light_and_shows_what_there_is(tmp_path: Path) -> None:
    code = (
        "import sys, lightlake; print(*dir(lightlake));"
        "print(*{'prefect', 'astropy', 'pandas', 'duckdb', 'pyarrow'} & set(sys.modules));"
        "print(lightlake.LightlakeError.__name__)"
    )
    done = python(code, tmp_path)
    assert done.stdout.split("\n") == [" ".join(sorted(lightlake.__all__)), "", "LightlakeError", ""], done.stderr
    done = python("import sys, lightlake; lightlake.Lake; print('prefect' in sys.modules)", tmp_path)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", ["lake", "tasks", "flows", "deployments"])
def test_a_module_in_the_way_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "data.csv").write_text("ra,dec\n")
    assert python("import lightlake", tmp_path).returncode == 0  # a folder of data is not in the way
    (tmp_path / name / "__init__.py").touch()
    done = python("import lightlake", tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {tmp_path / name} hides the package '{name}' of lightlake: rename it, or start Python in "
        "another folder"
    )
    (tmp_path / name / "__init__.py").unlink()
    (tmp_path / f"{name}.py").touch()
    (tmp_path / name / "data.csv").unlink()
    (tmp_path / name).rmdir()
    done = python(f"import {name}\nimport lightlake", tmp_path)
    assert f"{name}.py hides the package '{name}'" in done.stderr.splitlines()[-1]


def handlers() -> list[Any]:
    """What happens on signals; the wakeup descriptor is looked at by setting it."""
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return [descriptor, *(signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))]


def test_a_pull_within_a_running_loop(my_lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook: the loop goes on, and signals are handled as before, meanwhile too."""
    pull_all, meanwhile = local.pull_all, []

    def pulled(*arguments: Any, **more: Any) -> Any:
        meanwhile.append(handlers())
        return pull_all(*arguments, **more)

    monkeypatch.setattr(local, "pull_all", pulled)

    async def session() -> tuple[Any, Any, list[Any]]:
        before = handlers()
        lake = lightlake.open(my_lake)
        added = lake.targets.add(
            pd.DataFrame(
                {"name": ["P0", "P4"], "ra": [PLACES[0][0], PLACES[4][0]], "dec": [PLACES[0][1], PLACES[4][1]]}
            ),
            "places",
        )
        report = lightlake.pull("icecube", lake=lake, sample="places")
        await asyncio.sleep(0)
        again = lightlake.refresh("icecube", lake=lake, sample="places")
        assert [*meanwhile, handlers()] == [before] * 3
        assert lake.sql("SELECT count(*) AS n FROM coverage WHERE archive = 'icecube'")["n"].to_pylist() == [2]
        lake.close()
        return added, report, again.reports

    added, report, again = asyncio.run(session())
    assert (added.new, report.asked, report.lost) == (2, 2, False)
    assert [one.asked for one in again] == [0]
    assert repr(report) == f"<{report.message}>"
    assert "ra from ra" in repr(added)


def test_an_interrupted_pull_leaves_the_session(my_lake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local, "pull_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lightlake.pull("icecube", lake=my_lake)
    with lightlake.open(my_lake) as lake:
        assert lake.sql("SELECT state FROM runs")["state"].to_pylist() == ["stopped"]
        assert lightlake.pull("icecube", lake=lake).asked == 2


def test_targets_come_in_any_table(my_lake: str, tmp_path: Path) -> None:
    ra, dec = zip(*PLACES[10:13], strict=True)
    columns = {"name": ["P10", "P11", "P12"], "ra": list(ra), "dec": list(dec), "class": ["a", "b", "c"]}
    (tmp_path / "list.csv").write_text(pd.DataFrame(columns).to_csv(index=False))
    galactic = SkyCoord(list(ra), list(dec), unit="deg").galactic
    tables = {
        "pandas": pd.DataFrame(columns),
        "index": pd.DataFrame(columns).set_index("name"),
        "polars": pl.DataFrame(columns),
        "arrow": pa.table(columns),
        "dict": columns,
        "astropy": QTable({"name": columns["name"], "position": galactic, "class": columns["class"]}),
        "radians": QTable(
            {"name": columns["name"], "ra": u.Quantity(list(ra), "deg").to("rad"), "dec": list(dec) * u.deg,
             "class": columns["class"]}
        ),
        "file": tmp_path / "list.csv",
        "names": ["P10", "P11", "P12"],
    }  # fmt: skip
    with lightlake.open(my_lake) as lake:
        for sample, table in tables.items():
            added = lake.targets.add(table, sample, **({} if sample == "names" else {"label": "class"}))
            assert (added.rows, added.new, added.labels) == (3, 3 if sample == "pandas" else 0, 3), sample
            labels = lake.sql("SELECT label FROM labels WHERE sample = ? ORDER BY ALL", [sample])["label"].to_pylist()
            assert labels == (["names"] * 3 if sample == "names" else ["a", "b", "c"])
        assert len(lake.targets("pandas", form="pandas")) == 3
        assert "P10" in lake.targets._repr_html_()
        assert "5 targets" in repr(lake.targets)


def test_errors_are_of_one_class_and_nothing_is_added(my_lake: str) -> None:
    bad = pd.DataFrame({"name": ["P", "Q", "R"], "ra": [1.0, 400.0, 2.0], "dec": [1.0, 2.0, 95.0]})
    with lightlake.open(my_lake) as lake:
        for ask, message in (
            (lambda: lake.targets.add(bad, "bad"), "nothing was added, for 2 bad rows of 3: row"),
            (lambda: lake.targets.add(bad[["name", "ra"]], "bad", dec="nosuch"), "go together"),
            (lambda: lake.targets.add(3.5, "bad"), "a float is no list of targets"),
            (lambda: lake.targets.add(bad, " "), "the sample has no name"),
            (lambda: lightlake.pull("giaa", lake=lake), "giaa"),
            (lambda: lightlake.pull("icecube", lake=lake, sample="quasar"), "unknown sample 'quasar'"),
            (lambda: lightlake.pull("icecube", lake=lake, targets=bad), "added to a sample"),
            (lambda: lightlake.pull("icecube", lake=lake, parameters={"colour": 1}), "colour"),
            (lambda: lightlake.refresh(["icecube"], lake=lake, again=True, retry_failed=True), "retry"),
            (lambda: lightlake.samples.add("nosuch", lake=lake), "nosuch"),
            (lambda: lightlake.samples.add(lake=lake), "no sample is named"),
            (lambda: lightlake.open("nowhere"), "nowhere"),
        ):
            with pytest.raises(lightlake.LightlakeError, match=message):
                ask()
        assert lake.targets().num_rows == 2
        added = lake.targets.add(bad, "good", skip_bad=True)
        assert (added.new, [row.line for row in added.bad_rows]) == (1, [2, 3])
    with lightlake.open(my_lake, confined=True) as lake, pytest.raises(lightlake.LightlakeError, match="strangers"):
        lake.targets.add(bad, "bad")


class Shell:
    """IPython's shell, as far as progress and tables use it."""

    def __init__(self, *, kernel: bool) -> None:
        self.kernel = object() if kernel else None
        self.shown: list[list[str]] = []
        self.types: dict[str, Any] = {}
        html = types.SimpleNamespace(for_type_by_name=lambda module, name, show: self.types.__setitem__(name, show))
        self.display_formatter = types.SimpleNamespace(formatters={"text/html": html})

    def display(self, made: Any, display_id: bool) -> Any:
        assert display_id
        self.shown.append([made])
        return types.SimpleNamespace(update=self.shown[-1].append)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A notebook's shell, without the package."""
    shell = Shell(kernel=True)
    display = types.SimpleNamespace(HTML=str, display=shell.display)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    return shell


def test_a_notebook_shows_bars_and_tables(my_lake: str, shell: Shell) -> None:
    lake = lightlake.open(my_lake)
    report = lightlake.pull("icecube", lake=lake)
    assert report.asked == 2
    (cell,) = shell.shown
    assert 'value="0" max="2"' in cell[0]
    assert 'value="2" max="2"' in cell[-1]
    html = shell.types["Table"](lake.light_curve("A"))
    assert "<svg" in html
    assert "<th>mJy</th>" in html
    lake.close()


KERNEL = """
import lightlake
lake = lightlake.open({url!r})
report = lightlake.pull("icecube", lake=lake)
print("asked", report.asked)
lake.light_curve("A")
"""


@pytest.mark.long  # test_a_notebook_shows_bars_and_tables has the same of a shell without the package
def test_in_a_real_kernel(my_lake: str, tmp_path: Path) -> None:
    pytest.importorskip("ipykernel")
    client = pytest.importorskip("jupyter_client")
    manager, kernel = client.manager.start_new_kernel(
        env={**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / "ipython")}
    )
    said: list[dict[str, Any]] = []
    try:
        kernel.execute_interactive(KERNEL.format(url=my_lake), timeout=120, output_hook=said.append)
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = [one["header"]["msg_type"] for one in said]
    assert "error" not in kinds, said
    assert "asked 2" in "".join(one["content"]["text"] for one in said if one["header"]["msg_type"] == "stream")
    assert kinds.count("display_data") == 1
    (result,) = [one["content"]["data"] for one in said if one["header"]["msg_type"] == "execute_result"]
    assert "<svg" in result["text/html"]


def test_the_lake_for_queries_is_the_same(my_lake: str) -> None:
    with lightlake.open(my_lake) as lake, Lake(my_lake) as plain:
        assert isinstance(lake, Lake)
        assert lake.targets("quasars").equals(plain.targets("quasars"))
        assert lake.light_curve("A").equals(plain.light_curve("A"))
