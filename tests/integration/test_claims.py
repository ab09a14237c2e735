"""Claims of the lake by which it knows who is alive, in SQLite's folder and in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.postgres import administrator, end_lock_sessions
from helpers.processes import until

from lake.store import claims
from lake.store.catalog import Catalog


def test_a_claim_is_held_until_its_work_is_done(anywhere_catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "KEEP_S", 0.05)
    catalog = anywhere_catalog
    with claims.held(catalog, "one", "a test") as ours:
        assert ours
        assert not claims.is_free(catalog, "one")
        with claims.held(catalog, "one", "another") as theirs, claims.held(catalog, "two") as other:
            assert (theirs, other) == (False, True)
        holder = claims.holder_of(catalog.storage, "one")
        assert holder is not None
        assert (holder.what, holder.is_this, holder.ending) == ("a test", True, False)
        # As a database forgets it that is restarted.
        if catalog.location.kind == "sqlite":
            (Path(catalog.location.target).parent / "claims" / "one.lock").unlink()
        else:
            with administrator(catalog.location.target) as server:
                assert end_lock_sessions(server) >= 1
        until(lambda: not claims.is_free(catalog, "one"), "it is taken anew", 10)
    assert claims.is_free(catalog, "one")
    assert claims.is_free(catalog, "two")
    assert claims.holder_of(catalog.storage, "one") is None
