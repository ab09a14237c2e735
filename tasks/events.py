"""Send Prefect events: that targets were added, and that light curves changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lake.commit.targets import Added
from lake.redact import safe_line
from lake.upkeep.changes import Changes

TARGETS_ADDED = "lightlake.targets.added"
# After a refresh: anything changed; and points came that are far from what their light curves were.
CURVES_CHANGED, CURVES_VARIED = "lightlake.lightcurves.changed", "lightlake.lightcurves.varied"
# Labels of the event's resource; the first begins its id, too.
SAMPLE, LAKE = "lightlake.sample", "lightlake.lake"

# Longest wait for Prefect, seconds.
PATIENCE_S = 5.0

# An event names so many targets; `lightlake changes` has all.
_MOST_TARGETS = 20


def announce(sample: str, lake: str, added: Added) -> str | None:
    """Send Prefect, if it has an API, the event of new targets; return the error if that failed."""
    resource = {"prefect.resource.id": f"{SAMPLE}.{sample}", "prefect.resource.name": sample, SAMPLE: sample}
    payload = {"rows": added.rows, "new": added.new, "known": added.known, "labels": added.labels}
    return _send([(TARGETS_ADDED, {**resource, LAKE: lake}, payload)])


def announce_changes(lake: str, found: Changes) -> str | None:
    """Send Prefect, if it has an API, the events of changed light curves; return the error if that failed.

    Parameters
    ----------
    lake
        Its address.
    found
        What changed; without rows nothing is sent.
    """
    if not found.rows.num_rows:
        return None
    resource = {"prefect.resource.id": f"{LAKE}.{lake}", "prefect.resource.name": lake, LAKE: lake}
    names = ("new_points", "changed_points", "gone_points", "gone_sources", "brighter", "fainter")
    payload: dict[str, Any] = {name: found.total(name) for name in names}
    payload |= {"first_snapshot": found.first, "last_snapshot": found.last, "sigma": found.sigma}
    events = [(CURVES_CHANGED, resource, {**payload, "targets": found.rows.slice(0, _MOST_TARGETS).to_pylist()})]
    varied = [row for row in found.rows.to_pylist() if row["brighter"] or row["fainter"]]
    if varied:
        what = "; ".join(_line(row) for row in varied[:_MOST_TARGETS])
        events.append((CURVES_VARIED, resource, {**payload, "text": what, "targets": varied[:_MOST_TARGETS]}))
    return _send(events)


def _line(row: dict[str, Any]) -> str:
    above, below = row["most_above_sigma"], row["most_below_sigma"]
    most = max((above, below), key=abs)
    name = row["name"] or row["target_id"]
    return f"{name}: {most:+.1f} sigma in {row['archive']} {row['band']} at MJD {row['mjd']:.3f}"


def _send(events: list[tuple[str, dict[str, str], dict[str, Any]]]) -> str | None:
    """Send events, each of a name, a resource and a payload; return the error if that failed."""
    if not (api := prefect_api()):
        return None
    import httpx
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            _post(events)
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


def _post(events: list[tuple[str, dict[str, str], dict[str, Any]]]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.events import Event

    made = [Event(event=name, resource=resource, payload=payload) for name, resource, payload in events]
    # Prefect's emit_event leaves the event to a thread that reports no errors; this waits for the server's answer.
    with get_client(sync_client=True, httpx_settings={"timeout": PATIENCE_S}) as client:
        body = [event.model_dump(mode="json") for event in made]
        client.request("POST", "/events", json=body).raise_for_status()
