"""The wheel and the source distribution have what an installation needs, and the wheel works without the project."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from helpers.processes import child_environment

ROOT = Path(__file__).parents[2]
PAGES = "deployments/documentation/pages"

# Entry points of the wheel, in the interpreter of a venv that sees only the packages of this one, not this project.
COMMAND = "import sys; from lake.cli import main; sys.argv[0] = 'lightlake'; main()"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build both from what git knows, in a folder without the project's history."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", folder / "builder"], check=True)
    python = folder / "builder" / "bin" / "python"
    # What pyproject.toml names, once: `build` would make an environment with it for each of the two.
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "build", *needed], check=True, env=child_environment())
    made = subprocess.run(
        [python, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(),
    )
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,), (archive,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, archive


@pytest.mark.long
def test_both_have_the_pages_and_the_code(built: tuple[Path, Path]) -> None:
    wheel, archive = built
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(archive) as opened:
        in_archive = {name.partition("/")[2] for name in opened.getnames()}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {f"{PAGES}/{page}" for page in pages} == {name for name in in_wheel if name.startswith(f"{PAGES}/")}
    assert {f"docs/{page}" for page in pages} <= in_archive
    code = {
        path.relative_to(ROOT).as_posix()
        for package in ("lake", "tasks", "flows", "deployments")
        for path in (ROOT / package).rglob("*.py")
    }
    assert code <= in_wheel
    assert code <= in_archive
    assert {"lightlake.py", "lake/py.typed", "deployments/prefect.yaml"} <= in_wheel
    assert not {name for name in in_wheel if name.startswith(("tests/", "docs/", "benchmarks/"))}


@pytest.mark.long
def test_the_wheel_works_without_the_project(built: tuple[Path, Path], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (own,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", own, built[0]],
        check=True,
        env=child_environment(),
    )
    # The packages of this environment, without its .pth files, one of which leads to the project.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (tmp_path / "empty").mkdir()
    environment = child_environment(PYTHONPATH=os.pathsep.join([str(own), *others]), HOME=str(tmp_path))

    def lightlake(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", COMMAND, *arguments],
            cwd=tmp_path / "empty",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert lightlake("--version").stdout.strip() != ""
    topics = lightlake("help")
    assert topics.returncode == 0, topics.stderr
    assert "  reference/errors " in topics.stdout
    shown = lightlake("help", "reference/errors#exit-codes")
    assert "| 70 |" in shown.stdout, shown.stderr
    files = sorted((own / PAGES).rglob("*.md"))
    page = files[0].relative_to(own / PAGES)
    assert lightlake("help", page.with_suffix("").as_posix()).stdout.strip() != ""
    lost = lightlake("status")
    assert lost.returncode == 2
    assert "see: lightlake help" in lost.stderr
    made = lightlake("init", "my-lake")
    assert made.returncode == 0, made.stderr
