"""What runs: flows that wire tasks together. Orchestration only, no science."""

from __future__ import annotations

import os

# Before Prefect is imported: no phoning home, and time enough for its own server to start on a busy machine.
for _name, _value in (
    ("DO_NOT_TRACK", "1"),
    ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
    ("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false"),
    ("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120"),
):
    os.environ.setdefault(_name, _value)
