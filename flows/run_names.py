"""What names of archives, and keys of their parameters, mean in a file that describes a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lake.errors import ConfigurationError
from lake.names import unknown
from tasks.sources.base import Archive
from tasks.sources.collector import Key
from tasks.sources.registry import expand, known

# The page that helps with errors from here.
HELP_TOPIC = "how-to/runs"

CORE, ALL = "core", "all"


def core() -> list[str]:
    """Return the archives of the group core: those that the collector asks for large samples."""
    return sorted(name for name, archive in known().items() if archive.collector and archive.collector.is_core)


def archives_of(name: str, parameters: Collection[str] = ()) -> list[str]:
    """Return the archives that a name stands for.

    Parameters
    ----------
    name
        An archive, a service, a group, or an archive by its name in the collector, in any case.
    parameters
        Archives that have parameters in this run.

    Raises
    ------
    ConfigurationError
        If it is none of these; the message names what is nearest.
    """
    lower = name.lower()
    archives = known()
    if lower == ALL:
        return sorted(archives)
    if lower == CORE:
        return core()
    if lower in archives:
        return [lower]
    if called := _called(lower):
        return [one.name for one in called if one.name in parameters or (one.collector and one.collector.is_asked)]
    services = {archive.service for archive in archives.values() if archive.service}
    if lower not in services and not any(lower in archive.former_names for archive in archives.values()):
        theirs = {archive.collector.name for archive in archives.values() if archive.collector}
        raise unknown("archive", name, {*archives, *services, *theirs, CORE, ALL})
    return expand([lower])


def own_parameters(name: str, given: Mapping[str, Any], notes: list[str]) -> dict[str, dict[str, Any]]:
    """Return parameters by archive, in the archive's own words and units.

    Parameters
    ----------
    name
        The archive, in either's words.
    given
        Its parameters, in either's words.
    notes
        Receives a line for each that has no meaning here.

    Raises
    ------
    ConfigurationError
        If a parameter is unknown, or its value cannot be; the message names what is nearest.
    """
    archives = known()
    members = [archives[one] for one in archives_of(name, archives)]
    own: dict[str, dict[str, Any]] = {}
    for key, value in _flat(given, {one for archive in members for one in archive.parameters}):
        lower, taken = key.lower(), False
        for archive in members:
            theirs = dict(archive.collector.keys) if archive.collector else {}
            if lower in archive.parameters:
                own.setdefault(archive.name, {})[lower] = value
                taken = True
            elif lower in theirs:
                _convert(archive, theirs[lower], f"{name}.{key}", value, own, notes)
                taken = True
        if not taken:
            names = {one for archive in members for one in archive.parameters}
            names |= {one for archive in members if archive.collector for one in archive.collector.keys}
            raise unknown("parameter", key, names, f"of {name}")
    for archive_name, values in own.items():
        archives[archive_name].with_defaults(values)
    return own


def _called(name: str) -> list[Archive]:
    """Return the archives of a name in the collector."""
    return [archive for archive in known().values() if archive.collector and archive.collector.name == name]


def _convert(
    archive: Archive, key: Key, where: str, value: Any, own: dict[str, dict[str, Any]], notes: list[str]
) -> None:
    if key.parameter is None:
        line = f"{where}: no parameter of a pull; {key.note.format(value=value)}"
        if line not in notes:
            notes.append(line)
        return
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{where} cannot be {value!r}", hint="it is a number") from None
    # Degrees of a whole number of arcsec are not exact: 0.0005555555555555556 is 2 arcsec.
    own.setdefault(archive.name, {})[key.parameter] = float(f"{number * key.factor:.10g}")


def _flat(given: Mapping[str, Any], whole: Collection[str], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys and values; a key inside another has a dot, unless the outer one is a parameter itself."""
    for name, value in given.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and key.lower() not in whole:
            yield from _flat(value, whole, f"{key}.")
        else:
            yield key, value
