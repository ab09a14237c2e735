"""A run by file is stopped and finished where the lake is on S3 and its catalogue in PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from test_run_by_file import box, quick_again, services
from test_run_by_file import test_stopped_by_another_process_it_ends_soon_and_loses_nothing as stopped_by_another

from lake.settings import Settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

pytestmark = pytest.mark.server

__all__ = ["box", "quick_again", "services"]


@pytest.fixture
def lake_place(s3_lake: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Where a department's lake lives."""
    catalog = f"postgres:{postgres} schema=lake_{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("LIGHTLAKE_CATALOG", catalog)
    return {"url": s3_lake, "catalog": catalog}


@pytest.fixture
def catalog(settings: Settings) -> Iterator[Catalog]:
    """Its catalogue, new."""
    catalog = Catalog(Storage.from_url(settings.url), settings)
    catalog.create()
    yield catalog
    catalog.close()


test_stopped_by_another_process_it_ends_soon_and_loses_nothing = stopped_by_another
