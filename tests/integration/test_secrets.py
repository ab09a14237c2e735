"""An endpoint with a password is asked with it, and no table, listing or error has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.processes import Run

from deployments.sandbox.server import Handler, Request, Response, Sandbox
from lake.commit.targets import add_targets
from lake.query import Lake
from lake.store.catalog import Catalog
from tasks.pull import commit_batch, fetch_batch, lake_at, plan_batches
from tasks.sources.registry import find

USER, PASSWORD = "observer", "XYZZY-s3same:&'"
TYPED = f"{USER}:XYZZY-s3same%3A%26%27"


@pytest.fixture
def guarded(archive_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Archives that answer those alone who know the password."""
    wanted = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"

    def behind(handler: Handler) -> Handler:
        def answer(request: Request) -> Response:
            if request.headers.get("Authorization") == wanted:
                return handler(request)
            told = f"no entry to http://{request.headers['Host']}{request.path}?token=XYZZY"
            return Response(told.encode(), 401, "text/plain")

        return answer

    with Sandbox.start(archive_root, archives=["icecube", "heasarc"]) as sandbox:
        for path, handler in list(sandbox._handlers.items()):
            sandbox._handlers[path] = behind(handler)
        yield sandbox


@pytest.mark.parametrize(
    ("archive", "setting"), [("icecube", "ICECUBE"), pytest.param("fermigtrig", "HEASARC", marks=pytest.mark.long)]
)
def test_a_password_is_used_and_not_told(
    archive: str,
    setting: str,
    guarded: Sandbox,
    catalog: Catalog,
    lake: Lake,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"URL": str(lake.storage.root), "CACHE_DIR": str(tmp_path / "cache"), "RETRIES": "0"}.items():
        monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    add_targets(catalog, pa.table({"ra": [77.3582], "dec": [5.6931], "name": ["TXS 0506+056"]}), "s")
    url = guarded.endpoints[setting.lower()]
    statuses = []
    for user in (TYPED, f"{USER}:XYZZY-wrong"):
        monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{setting}", url.replace("://", f"://{user}@"))
        asked = find(archive)
        folder = lake.storage.staging / f"pull-{len(statuses)}"
        (batch,) = plan_batches(lake, asked, asked.with_defaults(None), None, folder, select="all")
        (receipt,) = commit_batch(str(lake.storage.root), fetch_batch(batch))
        statuses.append(receipt.status)
        shown = [str(receipt), *(run("archives", *more).out for more in ((), ("--json",)))]
        rows = lake.sql("FROM ledger").to_pylist()
        shown += [str(rows), run("status", archive).out, run("sql", "FROM ledger", "--output", "json").out]
        assert "XYZZY" not in "".join(shown)
        assert "127.0.0.1" in shown[2]
    lake_at.cache_clear()
    assert statuses[0] in ("done", "empty")
    assert statuses[1:] == ["failed"]
    assert [row["endpoint"].partition("/")[0] for row in rows] == ["http:"] * 2
    assert "Traceback" in rows[-1]["error"]
