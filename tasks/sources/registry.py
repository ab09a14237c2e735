"""The sources that Lightlake can pull: a module or folder each, one line each in the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo

from lake.errors import ConfigurationError
from lake.model.declared import current_name
from lake.names import unknown
from lake.settings import load_settings
from tasks.sources import heasarc, panstarrs, wise, ztf
from tasks.sources.base import Archive
from tasks.sources.event_table import EventTable
from tasks.sources.gaia import archive as gaia
from tasks.sources.hcv import archive as hcv
from tasks.sources.hst_timetag import source as hst_timetag
from tasks.sources.icecube import archive as icecube
from tasks.sources.protocol import Survey
from tasks.sources.rxte import source as rxte
from tasks.sources.tess_kepler import archive as tess_kepler
from tasks.sources.virac import source as virac

_SOURCES: tuple[Archive | Survey, ...] = (
    gaia.ARCHIVE,
    hcv.ARCHIVE,
    *heasarc.ARCHIVES,
    hst_timetag.SOURCE,
    icecube.ARCHIVE,
    panstarrs.ARCHIVE,
    rxte.SOURCE,
    tess_kepler.ARCHIVE,
    virac.SOURCE,
    wise.ARCHIVE,
    ztf.ARCHIVE,
)

# The page that shows how the settings add a table.
TABLES_PAGE = "how-to/heasarc-table.md"

# Archives, which are asked for targets; and surveys, whose files are extracted, each with a command of its own.
REGISTRY: dict[str, Archive] = {one.name: one for one in _SOURCES if isinstance(one, Archive)}
SURVEYS: dict[str, Survey] = {one.name: one for one in _SOURCES if not isinstance(one, Archive)}


def survey_of(archive: str) -> Survey | None:
    """Return the survey whose rows the lake has under a name; None if there is none."""
    return next((one for one in SURVEYS.values() if any(archive == mine.archive for mine in one.declarations)), None)


def known() -> dict[str, Archive]:
    """Return all archives by name: those of the registry, and the tables that the settings add."""
    taken = {*REGISTRY, *(archive.service for archive in REGISTRY.values())}
    taken |= {name for archive in REGISTRY.values() for name in archive.former_names}
    added = dict[str, Archive]()
    for archive in heasarc.configured(load_settings()):
        if archive.name in {*taken, *added} or survey_of(archive.name):
            raise ConfigurationError(
                f"LIGHTLAKE_TABLES__{archive.name.upper()}: an archive, survey or service has that name already",
                hint="choose another name, and say in its table what HEASARC calls it",
            )
        added[archive.name] = archive
    return {**REGISTRY, **added}


def table_keys() -> dict[str, FieldInfo]:
    """Return the keys of a table that the settings add, with their words and defaults."""
    return dict(EventTable.model_fields)


def find(name: str, release: str | None = None) -> Archive:
    """Return the archive of that name, at its usual release or another.

    Raises
    ------
    ConfigurationError
        If there is none (the message names those that exist), or if its address is that of one release alone.
    """
    archives = known()
    name = current_name(name, (one.declaration for one in archives.values()))
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


def check_parameters(parameters: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any]:
    """Check that parameters by archive belong to the named archives, which have such parameters and take such values.

    Returns
    -------
    dict
        The same, by the archives' present names.

    Raises
    ------
    ConfigurationError
        If any does not.
    """
    declared = [archive.declaration for archive in known().values()]
    given = {current_name(name, declared): values for name, values in (parameters or {}).items()}
    for name in given:
        if name not in names:
            raise unknown("archive", name, names, "among those that are asked, but there are parameters for it")
    for name in names:
        find(name).with_defaults(given.get(name))
    return given


def expand(names: list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the archives that names stand for: a service for all its archives, no name for all archives.

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
