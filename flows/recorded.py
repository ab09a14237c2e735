"""Record what the flows and commands of this package do as runs of the lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from lake.query import Lake
from tasks.pull.recording import Recording, new_run_id, recorded
from tasks.pull.run import Outcome
from tasks.sources.protocol import Request


def as_json(options: Any) -> str:
    """Return options as JSON, for table runs."""
    plain = options.model_dump(mode="json") if isinstance(options, BaseModel) else options
    return json.dumps(plain, default=str)


def name_of(request: Request) -> str:
    """Return what a pull does, in a few words."""
    which = {"pending": "", "failed": " (failed ones)", "all": " again"}[request.select]
    return f"pull {request.source} for {', '.join(request.samples or ['all targets'])}{which}"


@contextmanager
def pull_recorded(lake: Lake, request: Request, **more: Any) -> Iterator[Recording]:
    """Record the pull of one source."""
    options = request.options
    plain = {
        "source": request.source,
        "samples": request.samples,
        "select": request.select,
        "release": request.release,
        "options": options.model_dump(mode="json") if isinstance(options, BaseModel) else options,
    }
    with recorded(lake, name_of(request), new_run_id(request.source), request=as_json(plain), **more) as recording:
        yield recording


def note_outcome(recording: Recording, outcome: Outcome) -> None:
    """Note how the pull of one source ended."""
    if isinstance(outcome, Exception):
        recording.finish("failed", str(outcome) or type(outcome).__name__)
    else:
        recording.ends(lost=outcome.lost, message=outcome.message)
