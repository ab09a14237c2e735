"""What can go wrong, by what the reader can do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lake.redact import redacted, safe_line


class LightlakeError(Exception):
    """Base of every error that Lightlake raises on purpose: one clear line, with what to do next.

    Whatever it is made of, it has no secrets and no control characters: it goes to terminals, logs and the ledger.

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
    """A setting, path, URL or input file that cannot work as given."""


class CatalogError(LightlakeError):
    """The lake's catalogue is missing, unreadable, locked or of another version."""


class NoLake(CatalogError):
    """There is no lake yet at a place where one may be made."""


class Interrupted(CatalogError):
    """A writer lost its connection to the catalogue, or its lock: nothing is lost, and it can be done again."""


class ReadOnly(CatalogError):
    """The lake may be read but not written: by this user, or through this handle."""


class SchemaError(LightlakeError):
    """A table does not have the columns, types or values that the schema asks for."""


class GranuleRejected(LightlakeError):
    """A granule's data broke a rule of the lake; nothing of it was committed.

    Parameters
    ----------
    reason
        The rule that was broken, with the values seen.
    sources
        Ids of the sources that broke it; empty if it is not theirs alone.
    """

    def __init__(self, reason: str, *, sources: Iterable[str] = (), hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.reason = self.message
        self.sources = frozenset(sources)


class StagingLost(LightlakeError):
    """Files that were staged are gone or damaged before their commit; fetching again mends it."""


class ArchiveError(LightlakeError):
    """An archive did not give what it was asked for.

    Parameters
    ----------
    message
        What happened, in the archive's own words where it gave any.
    archive
        The archive's name in the registry.
    endpoint
        The URL or path that was asked; kept without its secrets.
    transient
        True if asking again may succeed (timeouts, 429, 5xx, resets, truncated bodies).
    retry_after_s
        Seconds to wait before asking again, where the archive said so.
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
    """The archive cut its answer short; the granule is to be split and asked again."""
