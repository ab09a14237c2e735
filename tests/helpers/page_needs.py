"""What a page of the documentation needs before its first block: a comment on the page names it.

    <!-- needs: postgres s3 -->

A page has it as its reader would: through the variables that the programs read by themselves. Where a server is not
installed, the page is skipped, or fails if LIGHTLAKE_TEST_REQUIRE names the server.

| need | what the page has |
|---|---|
| postgres | a PostgreSQL server that `psql` and lakes find: PGHOST, PGPORT, PGUSER, PGDATABASE |
| s3 | an S3 service with an empty bucket `my-bucket`: AWS_ENDPOINT_URL, keys and region |
| prefect | a Prefect server: PREFECT_API_URL |
| clone | a folder `lightlake` with a copy of this project, which is also what commands and `import` use |
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.s3 import S3

ROOT = Path(__file__).parents[2]
NEEDS = re.compile(r"^<!-- needs: (?P<names>.*?) -->$", re.MULTILINE)
BUCKET = "my-bucket"
_PARTS = ("benchmarks", "deployments", "docs", "flows", "lake", "tasks", "tests")


def needs(page: Path) -> list[str]:
    """Return what a page needs, in its own words."""
    return [name for match in NEEDS.finditer(page.read_text()) for name in match["names"].split()]


def provide(page: Path, work: Path, fixture: Callable[[str], Any]) -> dict[str, str]:
    """Start what a page needs, and return the variables that lead to it.

    Parameters
    ----------
    page
        A file of Markdown.
    work
        The folder where its blocks will run.
    fixture
        Returns the value of a fixture of pytest, which may skip the test.
    """
    environment: dict[str, str] = {}
    for name in needs(page):
        assert name in _PROVIDERS, f"{page.name} needs {name}, and there are {', '.join(_PROVIDERS)}"
        environment |= _PROVIDERS[name](work, fixture)
    return environment


def _postgres(work: Path, fixture: Callable[[str], Any]) -> dict[str, str]:
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    given = dict(part.split("=", 1) for part in fixture("postgres").split())
    return {names[key]: value for key, value in given.items()}


def _s3(work: Path, fixture: Callable[[str], Any]) -> dict[str, str]:
    server: S3 = fixture("s3")
    server.bucket(BUCKET)
    server.filesystem.delete_dir_contents(BUCKET)
    return server.environment


def _prefect(work: Path, fixture: Callable[[str], Any]) -> dict[str, str]:
    return {"PREFECT_API_URL": fixture("prefect_server").api}


def _clone(work: Path, fixture: Callable[[str], Any]) -> dict[str, str]:
    clone = work / "lightlake"
    clone.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in _PARTS:
            shutil.copytree(path, clone / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.suffix in (".md", ".py", ".toml", ".yml"):
            shutil.copy(path, clone)
    return {"PYTHONPATH": str(clone)}


_PROVIDERS = {"postgres": _postgres, "s3": _s3, "prefect": _prefect, "clone": _clone}
