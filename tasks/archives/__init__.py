"""The archives that Lightlake can pull: one module each, one line each in the registry."""

from __future__ import annotations

import difflib

from lake.errors import ConfigurationError
from lake.settings import load_settings
from tasks.archives import gaia, hcv, heasarc, icecube, lightkurve, panstarrs, wise, ztf
from tasks.archives.base import Archive

REGISTRY: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        gaia.ARCHIVE,
        hcv.ARCHIVE,
        *heasarc.ARCHIVES,
        icecube.ARCHIVE,
        lightkurve.ARCHIVE,
        panstarrs.ARCHIVE,
        wise.ARCHIVE,
        ztf.ARCHIVE,
    )
}  # fmt: skip


def known() -> dict[str, Archive]:
    """Return all archives by name: those of the registry, and the tables that the settings add."""
    added = {archive.name: archive for archive in heasarc.configured(load_settings())}
    if taken := sorted(set(added) & set(REGISTRY)):
        raise ConfigurationError(f"LIGHTLAKE_TABLES__{taken[0].upper()}: there is an archive of that name already")
    return {**REGISTRY, **added}


def find(name: str, release: str | None = None) -> Archive:
    """Return the archive of that name, at its usual release or another.

    Raises
    ------
    ConfigurationError
        If there is none, the message then names those there are; or if its address is that of one release alone.
    """
    archives = known()
    if name not in archives:
        near = difflib.get_close_matches(name.lower(), archives, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"unknown archive {name!r}", hint=f"{hint}known: {', '.join(sorted(archives))}")
    archive = archives[name]
    if release is None or release == archive.release:
        return archive
    pattern = archive.pattern(load_settings())
    if "{release}" not in pattern:
        raise ConfigurationError(
            f"{name} is pulled at release {archive.release}, and {pattern} does not say where {release} is",
            hint=f"put {{release}} into LIGHTLAKE_ENDPOINTS__{(archive.service or name).upper()} where its name stands",
        )
    return archive.at_release(release)


def expand(names: list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the archives that some names stand for: a service stands for all its archives, none for all.

    Raises
    ------
    ConfigurationError
        If a name is neither.
    """
    archives = known()
    expanded: list[str] = []
    for name in names or sorted(archives):
        group = sorted(archive.name for archive in archives.values() if archive.service == name)
        expanded += group or [find(name).name]
    return list(dict.fromkeys(expanded))
