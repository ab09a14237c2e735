"""Send Prefect the event that targets were added."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx

from lake.commit.targets import Added
from lake.redact import safe_line

TARGETS_ADDED = "lightlake.targets.added"
# Labels of the event's resource; the first begins its id, too.
SAMPLE, LAKE = "lightlake.sample", "lightlake.lake"

# Longest wait for Prefect, seconds.
PATIENCE_S = 5.0


def announce(sample: str, lake: str, added: Added) -> str | None:
    """Send Prefect, if it has an API, the event of new targets; return the error if that failed."""
    if not (api := prefect_api()):
        return None
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            _send(sample, lake, added)
        except httpx.HTTPError as error:
            return safe_line(f"{api}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    return None


def prefect_api() -> str | None:
    """Return the address of the configured Prefect server; None without one."""
    if "prefect" not in sys.modules and not _may_have_api():
        return None
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or None


def _may_have_api() -> bool:
    """Say whether an API may be configured; asking Prefect takes a second."""
    if "PREFECT_API_URL" in os.environ or Path("prefect.toml").exists():
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    return profiles.is_file() and "PREFECT_API_URL" in profiles.read_text(errors="replace")


def _send(sample: str, lake: str, added: Added) -> None:
    from prefect.client.orchestration import get_client
    from prefect.events import Event

    event = Event(
        event=TARGETS_ADDED,
        resource={
            "prefect.resource.id": f"{SAMPLE}.{sample}",
            "prefect.resource.name": sample,
            SAMPLE: sample,
            LAKE: lake,
        },
        payload={"rows": added.rows, "new": added.new, "known": added.known, "labels": added.labels},
    )
    # Prefect's emit_event leaves the event to a thread that reports no errors; this waits for the server's answer.
    with get_client(sync_client=True, httpx_settings={"timeout": PATIENCE_S}) as client:
        client.request("POST", "/events", json=[event.model_dump(mode="json")]).raise_for_status()
