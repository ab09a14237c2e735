"""Name flow runs for the UI: what they do, for which targets, and in which lake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lake.redact import safe_line
from lake.settings import load_settings


def title(what: str, given: Mapping[str, Any], link: str = "into") -> str:
    """Return the name of a flow run: what it does, and the last part of its lake's URL.

    Parameters
    ----------
    what
        What it does, and for which targets.
    given
        Parameters of the flow run.
    link
        Word between both, if any.
    """
    url = str(given.get("lake") or load_settings().url)
    name = url.rstrip("/").rpartition("/")[2] or url
    return safe_line(" ".join(part for part in (what, link, name) if part))
