"""Whether a flow can run here, before Prefect is asked to run it; and what of its errors a user sees: one line."""

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

# Longest wait for Prefect's API: on SQLite it may be busy for half a minute with what others write.
_PATIENCE_S = 60.0


def check_prefect() -> None:
    """See that Prefect's API answers, or that a server of its own can keep its database.

    Raises
    ------
    ConfigurationError
        If not: Prefect itself would try for a long time, and end in a traceback.
    """
    for check in prefect(_PATIENCE_S):
        if check.status == "fail":
            raise ConfigurationError(f"Prefect cannot run anything: {check.found}", hint=check.hint)


def run(flow: Callable[[], State[Any]]) -> State[Any]:
    """Run a flow of a command and return its final state; what it starts ends with the command.

    Raises
    ------
    ConfigurationError
        If Prefect could not run it, or parameters are not those that it takes.
    Exception
        What the flow broke off with: by Prefect's states alone nobody knows whether it was on purpose.
    """
    # What is raised here is told by whoever runs the command.
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
