"""What an HTTP service may do instead of answering, and what a user is told of it: one table for all services."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lake.settings import Settings


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, once.

    Parameters
    ----------
    kind
        As `Sandbox.fault` knows it.
    told
        Pattern of the message; None: by the kind of answer that was expected, see `TOLD`.
    transient
        True if another try may help; otherwise the message names the setting to check.
    retry_after_s
        The wait that the service asks for.
    settings
        Settings that make the test short.
    """

    kind: str
    told: str | None
    transient: bool = True
    retry_after_s: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def impatient(self, settings: Settings) -> Settings:
        """Return the settings of a request that meets this."""
        return settings.model_copy(update=self.settings)


FAULTS = {
    fault.kind: fault
    for fault in (
        Fault("status:408", "HTTP 408"),
        Fault("status:429", "HTTP 429", retry_after_s=1.0),
        Fault("status:500", "HTTP 500"),
        Fault("status:503", "HTTP 503"),
        Fault("status:401", "HTTP 401", transient=False),
        Fault("status:404", "HTTP 404", transient=False),
        Fault("garbage", None),  # a page of maintenance, under HTTP 200
        Fault("short", None),  # half of it, as if it were all
        Fault("truncate", "connection failed"),
        Fault("reset", "connection failed"),
        Fault("hang", r"no answer for 0\.5 s", settings={"timeout_s": 0.5}),
        Fault("slow", r"still not through after 0\.5 s", settings={"task_timeout_s": 0.5}),
        Fault("endless", "LIGHTLAKE_MAX_(ANSWER_MB|FILE_GB)", transient=False),
    )
}

REFUSALS = ("status:401", "status:404")
# Faults whose answer looks like one: what came may be half of it, and must not be kept.
SPOILT = ("status:503", "garbage", "short", "truncate", "reset")

# Of answers that came, but are none, by what was expected.
TOLD = {
    ("file", "garbage"): "what came is not the file",
    ("file", "short"): "what came is not the file",
    ("json", "garbage"): "no JSON.*Scheduled maintenance",
    ("json", "short"): "no JSON, or part of one",
    ("votable", "garbage"): "no VOTable.*down for maintenance",
    ("votable", "short"): "no VOTable, or part of one",
    ("job", "garbage"): "it made no job of the query",
    ("zip", "garbage"): "no VOTable, or part of one",
    ("zip", "short"): "a damaged zip",
}
