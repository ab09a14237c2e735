"""Clean the logs of runs: they quote archives and names of files, but no secrets and no control characters."""

from __future__ import annotations

import logging
import traceback

from lake.redact import safe_text

# Everything that flows and tasks log, and Prefect's own lines on errors, goes through Prefect's loggers of runs, to the
# terminal and to Prefect's database. The others log addresses at the level of information.
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "httpx", "urllib3.connectionpool")


class Clean(logging.Filter):
    """Removes secrets from records: from the message, its arguments, and the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a record in place; all records pass."""
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        record.msg, record.args, record.exc_info, record.exc_text = safe_text(said), None, None, None
        return True


def clean_logs() -> None:
    """Clean the logs of runs in this process from now on."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Clean) for one in logger.filters):
            logger.addFilter(Clean())
