"""Errors, by what the user can do about them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lake.redact import redacted, safe_line


class LightlakeError(Exception):
    """Base of every error that Lightlake raises on purpose: one clear line, with what to do next.

    Secrets and control characters are removed: the message goes to terminals, logs and the ledger.

    Parameters
    ----------
    message
        What happened, naming the file, archive or endpoint.
    hint
        What the user can do next.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        self.message = safe_line(message)
        self.hint = None if hint is None else safe_line(hint)
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


class ConfigurationError(LightlakeError):
    """A setting, path, URL or input file is wrong."""


class CatalogError(LightlakeError):
    """The lake's catalogue is missing, unreadable, locked or of another version."""


class NoLake(CatalogError):
    """There is no lake here yet, and one may be made."""


class Interrupted(CatalogError):
    """A writer lost its connection to the catalogue, or its lock; no data are lost, and it can retry."""


class ReadOnly(CatalogError):
    """The user, or the handle, may read the lake but not write it."""


class SchemaError(LightlakeError):
    """A table does not have the columns, types or values of the schema."""


class GranuleRejected(LightlakeError):
    """A granule's data broke a rule of the lake; nothing of it was committed.

    Parameters
    ----------
    reason
        The rule that was broken, with the values seen.
    sources
        Ids of the sources that broke it; empty if not only they did.
    """

    def __init__(self, reason: str, *, sources: Iterable[str] = (), hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.reason = self.message
        self.sources = frozenset(sources)


class StagingLost(LightlakeError):
    """Staged files are missing or damaged before their commit; they have to be fetched again."""


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
