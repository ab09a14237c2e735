"""Errors, by what the user can do about them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from lake.redact import redacted, safe_line

# What the command's exit code means.
EXIT_CODES = {
    0: "Done.",
    1: "Done, and something is missing or wrong. The lines above say what.",
    2: "The command could not do its work. One line says why, and what to do.",
    3: "The run was stopped by `lightlake stop`. What it had committed stays.",
    70: "A mistake of the program. `--debug` shows where. Please report it.",
    130: "Stopped by Ctrl-C. What was committed stays.",
}

_PACKAGES = ("lake", "tasks", "flows", "deployments")


class LightlakeError(Exception):
    """Base of every error that Lightlake raises on purpose: one clear line, with what to do next.

    Secrets and control characters are removed: the message goes to terminals, logs and the ledger.

    Parameters
    ----------
    message
        What happened, naming the file, archive or endpoint.
    hint
        What the user can do next.
    topic
        The page of the documentation that helps with it; default: that of its class, or of the module that raises it.
        See `topic_of`.
    """

    # What a user can do about errors of this kind, for the documentation; and the page that helps with all of them.
    advice: ClassVar[str] = "Do what the words in brackets say."
    topic: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, topic: str | None = None) -> None:
        self.message = safe_line(message)
        self.hint = None if hint is None else safe_line(hint)
        if topic is not None:
            self.topic = topic
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process boundaries (process pools, Dask); keyword-only arguments need this.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(cls: type[LightlakeError], args: tuple[Any, ...], state: dict[str, Any]) -> LightlakeError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


def topic_of(error: LightlakeError) -> str | None:
    """Return the page of the documentation that helps with an error; None if no page does.

    It is what the error or its class says. Else it is the `HELP_TOPIC` of the module that raised it, or of a package
    that the module is in; an empty one says that no page does.
    """
    if error.topic is not None:
        return error.topic
    raised_in, trace = "", error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] in _PACKAGES:
            raised_in = name
        trace = trace.tb_next
    while raised_in:
        if (topic := getattr(sys.modules.get(raised_in), "HELP_TOPIC", None)) is not None:
            return str(topic) or None
        raised_in = raised_in.rpartition(".")[0]
    return None


def with_topic(error: LightlakeError) -> str:
    """Return the line of an error for a terminal: what happened, what to do, and the page that helps.

    Examples
    --------
    >>> with_topic(NoLake("there is no lake at here", hint="make one: lightlake init here"))
    'there is no lake at here (make one: lightlake init here); see: lightlake help tutorials/first-lake'
    """
    topic = topic_of(error)
    return f"{error}; see: lightlake help {topic}" if topic else str(error)


class ConfigurationError(LightlakeError):
    """A setting, path, URL, option or input file is wrong."""

    advice = "Correct what the message names. `lightlake doctor` checks settings and the installation."


class CatalogError(LightlakeError):
    """The lake's catalogue is missing, unreadable, locked or of another version."""

    advice = (
        "Nothing in the lake has changed. `lightlake doctor` says what is wrong with the catalogue; "
        "`lightlake restore` brings a backup back."
    )


class NoLake(CatalogError):
    """There is no lake here yet, and one may be made."""

    advice = "Give the folder of your lake with `--lake` or `LIGHTLAKE_URL`, or make one: `lightlake init FOLDER`."
    topic = "tutorials/first-lake"


class Interrupted(CatalogError):
    """A writer lost its connection to the catalogue, or its lock; no data are lost, and it can retry."""

    advice = "Check that the database is up, then run it again. What was committed stays."
    topic = "how-to/postgresql"


class ReadOnly(CatalogError):
    """The user, or the handle, may read the lake but not write it."""

    advice = "Ask the lake's owner for the right to write, or open it for writing: `lake.open(url, writable=True)`."
    topic = "how-to/keep-a-lake"


class SchemaError(LightlakeError):
    """A table does not have the columns, types or values of the schema."""

    advice = "Compare the table with `lightlake schema`."
    topic = "reference/tables"


class GranuleRejected(LightlakeError):
    """A granule's data broke a rule of the lake; nothing of it was committed.

    Parameters
    ----------
    reason
        The rule that was broken, with the values seen.
    sources
        Ids of the sources that broke it; empty if not only they did.
    """

    advice = (
        "The archive or the file has values that cannot be right. Its neighbours are committed. Ask again with "
        "`--retry-failed`; if the reason stays, report it to the archive."
    )
    topic = "how-to/runs"

    def __init__(self, reason: str, *, sources: Iterable[str] = (), hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.reason = self.message
        self.sources = frozenset(sources)


class StagingLost(LightlakeError):
    """Staged files are missing or damaged before their commit; they have to be fetched again."""

    advice = "Run it again. If it happens again, find out what deletes files in the lake's folder `staging`."
    topic = "explanation/commits"


class PartlyCommitted(LightlakeError):
    """Some granules of a task are in the ledger, others are not; the rest is committed one by one."""

    advice = "Run it again."
    topic = "explanation/commits"


class ArchiveError(LightlakeError):
    """An archive did not answer a request.

    Parameters
    ----------
    message
        What happened, in the archive's own words if it sent any.
    archive
        The archive's name in the registry.
    endpoint
        The URL or path of the request; secrets are removed.
    transient
        True if a retry may succeed (timeouts, 429, 5xx, resets, truncated bodies).
    retry_after_s
        Seconds to wait before a retry, if the archive said so.
    """

    advice = (
        "Run it again: only what is missing is asked for. `lightlake doctor` says whether the archive answers; its "
        "endpoint is a setting."
    )
    topic = "how-to/runs"

    def __init__(
        self,
        message: str,
        *,
        archive: str,
        endpoint: str,
        transient: bool = False,
        retry_after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        self.endpoint = redacted(endpoint)
        super().__init__(f"{archive}: {redacted(message)} [{self.endpoint}]", hint=hint)
        self.archive = archive
        self.transient = transient
        self.retry_after_s = retry_after_s


class TruncatedAnswer(ArchiveError):
    """The archive truncated its answer; the granule has to be split and retried."""

    advice = "Nothing to do in most cases: the run asks for smaller pieces by itself."
    topic = "how-to/runs"
