"""The archives that Lightlake can pull: one module each, one line each in the registry."""

from __future__ import annotations

import difflib

from lake.errors import ConfigurationError
from tasks.archives import icecube
from tasks.archives.base import Archive

REGISTRY: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        icecube.ARCHIVE,
    )
}  # fmt: skip


def find(name: str) -> Archive:
    """Return the archive of that name.

    Raises
    ------
    ConfigurationError
        If there is none; the message names those there are.
    """
    if name not in REGISTRY:
        near = difflib.get_close_matches(name.lower(), REGISTRY, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"unknown archive {name!r}", hint=f"{hint}known: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]
