"""The archives that Lightlake can pull: one module each, one line each in the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lake.errors import ConfigurationError
from lake.names import unknown
from lake.settings import load_settings
from tasks.sources import heasarc, icecube, panstarrs, wise, ztf
from tasks.sources.base import Archive
from tasks.sources.gaia import archive as gaia
from tasks.sources.hcv import archive as hcv
from tasks.sources.tess_kepler import archive as lightkurve

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
}


# Surveys, whose files are extracted, and their commands: they are archives of a lake, too.
SURVEYS = {"virac": "virac", "rxte": "rxte", "rxte_pca": "rxte"}


def known() -> dict[str, Archive]:
    """Return all archives by name: those of the registry, and the tables that the settings add."""
    taken = {*REGISTRY, *SURVEYS, *(archive.service for archive in REGISTRY.values())}
    added = dict[str, Archive]()
    for archive in heasarc.configured(load_settings()):
        if archive.name in {*taken, *added}:
            raise ConfigurationError(
                f"LIGHTLAKE_TABLES__{archive.name.upper()}: an archive, survey or service is of that name already",
                hint="choose another name, and say in its table what HEASARC calls it",
            )
        added[archive.name] = archive
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
        raise unknown("archive", name, archives)
    archive = archives[name]
    if release is None or release == archive.release:
        return archive
    pattern = archive.url_template(load_settings())
    if "{release}" not in pattern:
        raise ConfigurationError(
            f"{name} is pulled at release {archive.release}, and {pattern} does not say where {release} is",
            hint=f"put {{release}} into LIGHTLAKE_ENDPOINTS__{(archive.service or name).upper()} where its name stands",
        )
    return archive.at_release(release)


def check_parameters(parameters: Mapping[str, Any] | None, names: Sequence[str]) -> None:
    """See that parameters by archive are of archives that are asked, and have names and values that these take.

    Raises
    ------
    ConfigurationError
        If any does not.
    """
    for name in parameters or ():
        if name not in names:
            raise unknown("archive", name, names, "among those that are asked, but there are parameters for it")
    for name in names:
        find(name).with_defaults((parameters or {}).get(name))


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
