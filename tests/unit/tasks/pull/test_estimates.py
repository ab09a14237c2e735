"""What a refresh would do, before it does it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.compute as pc
import pytest
from helpers import archives
from helpers.archives import register

from lake.commit.ledger import Waiting
from lake.errors import ConfigurationError
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from tasks.archives.estimates import count_ahead, plan, plans
from tasks.pull import commit_batch, count_to_ask, fetch_batch, lake_at, mark_batch_failed, plan_batches
from tasks.pull.report import PullReport
from tasks.sources.base import Archive
from tasks.sources.registry import REGISTRY

DEPTH = {"depth": 1}


@pytest.fixture
def madeup(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Archive:
    """The made-up archive, in the registry."""
    monkeypatch.setenv("LIGHTLAKE_URL", settings.url)
    if settings.catalog:
        monkeypatch.setenv("LIGHTLAKE_CATALOG", settings.catalog)
    archive = archives.archive()
    monkeypatch.setitem(REGISTRY, archive.name, archive)
    return archive


def test_a_plan_says_why_and_what_it_takes(
    catalog: Catalog, lake: Lake, madeup: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(catalog, range(10), "first")
    before = plan(lake, madeup, DEPTH)
    assert (before.waiting, before.answered, before.seconds) == (Waiting(10, 0, 0), 0, None)
    assert before.message == "madeup: 10 targets to ask (10 new); none was answered yet, no estimate"

    batches = list(plan_batches(lake, madeup, DEPTH, None, tmp_path / "plan"))
    for batch in batches[:-1]:
        commit_batch(lake.settings.url, fetch_batch(batch))
    commit_batch(lake.settings.url, mark_batch_failed(batches[-1], OSError("gone")))
    register(catalog, range(10, 13), "second")
    answered = sum(batch.n_targets for batch in batches[:-1])
    failed = batches[-1].n_targets
    after = plan(lake, madeup, DEPTH)
    assert after.waiting == Waiting(3, 0, failed)
    assert after.waiting.total == count_to_ask(lake, madeup, DEPTH, None)
    done = lake.sql("FROM ledger WHERE status IN ('done', 'empty')")
    assert after.answered == answered == pc.sum(done["n_targets"]).as_py()
    each = after.waiting.total / answered
    assert after.seconds == pytest.approx(each * pc.sum(done["seconds"]).as_py())
    assert after.n_rows == round(each * pc.sum(done["n_rows"]).as_py()) > 0
    assert after.bytes == round(each * pc.sum(done["bytes"]).as_py()) > 0
    assert f"{3 + failed} targets to ask (3 new, {failed} failed before), about " in after.message

    # A sample, other parameters, all again, and answers that are too old.
    assert plan(lake, madeup, DEPTH, ["second"]).waiting == Waiting(3, 0, 0)
    assert plan(lake, madeup, {"depth": 2}).waiting == Waiting(13, 0, 0)
    assert plan(lake, madeup, DEPTH, select="all").waiting == Waiting(3, answered, failed)
    live = replace(madeup, cadence="live", max_age_days=1e-9)
    assert plan(lake, live, DEPTH).waiting == Waiting(3, answered, failed)

    # A clock that ran ahead: answers that never age are answers, others are due, and it says so.
    far = datetime(2222, 1, 1, tzinfo=UTC)
    lake.catalog.cursor().execute("UPDATE coverage SET asked_at = ? WHERE status <> 'failed'", [far])
    assert (count_ahead(lake, madeup), plan(lake, madeup, DEPTH).waiting.old) == (0, 0)
    assert caplog.text == ""
    live = replace(madeup, cadence="live", max_age_days=7)
    assert (count_ahead(lake, live), plan(lake, live, DEPTH).waiting) == (answered, Waiting(3, answered, failed))
    assert f"{answered} answers of madeup are dated in the future" in caplog.text
    assert f"{answered} answers were dated in the future" in PullReport("madeup", "DR1", ahead=answered).message
    lake_at.cache_clear()


def test_of_several_archives_nothing_is_asked(catalog: Catalog, lake: Lake, madeup: Archive) -> None:
    register(catalog, range(3))
    made = plans(lake, ["madeup", "icecube"], {"madeup": {"depth": 2}}, "test")
    assert [(one.archive, one.waiting) for one in made] == [("madeup", Waiting(3, 0, 0)), ("icecube", Waiting(3, 0, 0))]
    assert [one.row()["targets"] for one in made] == [3, 3]
    assert replace(made[0], waiting=Waiting(0, 0, 0)).message == "madeup: nothing to ask"
    with pytest.raises(ConfigurationError, match="unknown sample 'nobody'"):
        plans(lake, ["madeup"], None, "nobody")
    assert lake.sql("FROM ledger").num_rows == 0
    lake_at.cache_clear()
