"""Check that a flow can run here, run it, and show its errors in one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL

from flows.doctor import prefect
from flows.temporary_server import TemporaryServer
from lake.errors import ConfigurationError, LightlakeError
from tasks.endings import ending_together

# The page that helps with errors from here.
HELP_TOPIC = "how-to/prefect"

# Longest wait for Prefect's API: on SQLite it may be busy for half a minute with other writers.
_PATIENCE_S = 60.0


def check_prefect() -> None:
    """Check that Prefect's API answers, or that a server of its own can keep its database.

    Raises
    ------
    ConfigurationError
        If not: Prefect itself would try for long, and end in a traceback.
    """
    for check in prefect(_PATIENCE_S):
        if check.status == "fail":
            raise ConfigurationError(f"Prefect cannot run anything: {check.found}", hint=check.hint)


def run(flow: Callable[[], State[Any]]) -> State[Any]:
    """Run a flow of a command and return its final state; its processes end with the command.

    Raises
    ------
    ConfigurationError
        If Prefect could not run it, or parameters are wrong.
    Exception
        The error that ended the flow: Prefect's states do not tell whether it was on purpose.
    """
    # The command shows the errors that are raised here.
    handlers = {*logging.getLogger().handlers, *logging.getLogger("prefect").handlers}
    for handler in handlers:
        handler.addFilter(_is_news)
    try:
        if not PREFECT_API_URL.value():
            TemporaryServer()
        with ending_together():
            state = flow()
    except LightlakeError:
        raise
    except (PrefectException, httpx.HTTPError, RuntimeError) as error:
        raise ConfigurationError(
            f"Prefect could not run it: {' '.join(str(error).split()) or type(error).__name__}",
            hint="see PREFECT_API_URL and PREFECT_HOME, or run: lightlake doctor",
        ) from error
    finally:
        for handler in handlers:
            handler.removeFilter(_is_news)
    outcome: Any = None if state.is_completed() else state.result(raise_on_failure=False)
    if isinstance(outcome, Exception):
        raise outcome
    return state


def _is_news(record: logging.LogRecord) -> bool:
    of_flow = record.name.startswith("prefect.flow_runs")
    return not (of_flow and str(record.msg).startswith(("Encountered exception during", "Finished in state")))
