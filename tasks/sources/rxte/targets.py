"""Commit the matches and coverage of targets, once their RXTE observations are in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from lake.commit.commit import Receipt
from lake.text import counted
from tasks.sources import observed
from tasks.sources.heasarc import SERVICE
from tasks.sources.observed import Question
from tasks.sources.rxte.find import Found
from tasks.sources.rxte.observations import Extraction
from tasks.worker import lake_at


def answer(
    url: str,
    targets: pa.Table,
    found: Found,
    extraction: Extraction,
    parameters: Mapping[str, Any],
    asked_at: datetime,
    endpoint: str,
    spent: Mapping[str, Any] | None = None,
) -> Receipt:
    """Commit the matches of targets with the observations in the lake, and their coverage.

    A target with an observation that failed counts as failed, so that the next run asks again. If its missing
    observations were all rejected, so is the target. Either has its matches with the other observations.

    Parameters
    ----------
    targets
        Columns of table targets.
    found
        Rows of xtemaster near them.
    extraction, parameters
        Of the request.
    asked_at, endpoint
        Time and address of the question to xtemaster.
    spent
        Requests and retries, for the ledger.
    """
    question = Question(extraction.origin, parameters, targets, asked_at, endpoint)
    pairs = found.matches().select(["target_id", "source_id", "separation_arcsec"])
    return observed.answer(lake_at(url), question, pairs, extraction.granule, _remarks(found), spent)


def give_up(
    url: str, targets: pa.Table, extraction: Extraction, parameters: Mapping[str, Any], error: BaseException
) -> Receipt:
    """Mark targets as failed that could not be looked up; an earlier answer stays."""
    question = Question(extraction.origin, parameters, targets, datetime.now(UTC), SERVICE)
    return observed.give_up(lake_at(url), question, error)


def _remarks(found: Found) -> list[str]:
    """Return the ledger's remarks on unusable rows of xtemaster."""
    reasons = found.unusable["reason"].value_counts().to_pylist()
    return [f"{counted(one['counts'], 'row')} of xtemaster: {one['values']}" for one in reasons]
