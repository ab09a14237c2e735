"""What logs of runs may hold: text of archives and names of files, without secrets and control characters."""

from __future__ import annotations

import logging
import traceback

from lake.redact import safe_text

# Prefect's loggers of runs: all that flows and tasks say goes through them, to the terminal and to Prefect's database,
# and so does what Prefect itself says of an error that ended a task, with what caused it. The others tell addresses to
# those who ask for more than warnings.
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "httpx", "urllib3.connectionpool")


class Clean(logging.Filter):
    """Leaves records without secrets: in the message, its arguments, and the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record in place; all pass."""
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        record.msg, record.args, record.exc_info, record.exc_text = safe_text(said), None, None, None
        return True


def clean_logs() -> None:
    """Have the logs of runs in this process cleaned."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(one, Clean) for one in logger.filters):
            logger.addFilter(Clean())
