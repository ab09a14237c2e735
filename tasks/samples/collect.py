"""Get samples of targets by their names, and add them to a lake."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lake.commit.ledger import SAMPLE_GRANULE, Attempt, canonical
from lake.commit.targets import MATCH_RADIUS_ARCSEC, Added, TargetList, add_lists
from lake.errors import ArchiveError, ConfigurationError
from lake.names import unknown
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from tasks.options import Options
from tasks.samples.literature import LITERATURE
from tasks.samples.options import FileOptions, LiteratureOptions, PaperOptions, SdssOptions, ZtfOptions
from tasks.samples.sample import Collected

_WAYS: dict[str, type[Options]] = {
    "paper": PaperOptions,
    "sdss": SdssOptions,
    "ztf_names": ZtfOptions,
    "file": FileOptions,
}

# What the light-curve collector of Fornax calls its samples, in small letters.
_COLLECTORS = {
    "lamassa": "lamassa15",
    "ruan": "ruan16",
    "yang": "yang18",
    "sheng": "sheng20",
    "graham": "graham19",
    "sanchezsaez": "sanchezsaez21",
    "green": "green22",
    "lyu": "lyu22",
    "lopeznavas": "lopeznavas22",
    "hon": "hon22",
    "ztf_objectid": "ztf_names",
    "ztf": "ztf_names",
    "papers_list": "paper",
    "csv": "file",
}
_COLLECTORS_PARAMETERS = {
    "paper_link": "paper",
    "objectids": "oids",
    "csv_path": "path",
    "ra_colname": "ra",
    "dec_colname": "dec",
}
# What the collector takes where nothing is given.
_COLLECTORS_DEFAULTS: dict[str, dict[str, Any]] = {
    "ztf_names": {"oids": ["ZTF18aabtxvd", "ZTF18aahqkbt"]},
    "paper": {"paper": "2019A&A...627A..33D", "label": "Cicco19"},
}


def known_samples() -> dict[str, type[Options]]:
    """Return the names that `collect` takes, each with the model of its parameters.

    The samples of the literature by their keys, then paper, sdss, ztf_names and file.
    """
    return {**dict.fromkeys(LITERATURE, LiteratureOptions), **_WAYS}


def collect(name: str, parameters: Mapping[str, Any], settings: Settings) -> list[Collected]:
    """Get a sample: one or several lists of targets, whole, or none.

    Parameters
    ----------
    name
        One of `known_samples`.
    parameters
        Of its model.
    settings
        Endpoints, and limits of time, size and retries.

    Raises
    ------
    ConfigurationError
        If the name is unknown, or a parameter is wrong.
    ArchiveError
        If the sample is not to be had whole, after retries; it says which service and what to do.
    """
    known = known_samples()
    if name not in known:
        raise unknown("sample", name, known)
    options: Any = known[name].of(**parameters)
    try:
        return [_ways()[name](options, settings) if name in _WAYS else _literature(name, options, settings)]
    except ArchiveError as error:
        error.hint = "; ".join(filter(None, (error.hint, f"sample {name} is not whole, and nothing was added")))
        raise


def _ways() -> dict[str, Callable[[Any, Settings], Collected]]:
    """Return what gets the samples that are not of the literature; astronomy's libraries are imported when used."""
    from tasks.samples.listed import listed
    from tasks.samples.papers import paper
    from tasks.samples.sdss import quasars
    from tasks.samples.ztf_names import named

    return {"paper": paper, "sdss": quasars, "ztf_names": named, "file": listed}


def _literature(name: str, options: LiteratureOptions, settings: Settings) -> Collected:
    from tasks.samples.papers import literature

    return literature(name, options, settings)


def add_collected(
    lake: Lake | Catalog,
    collected: Sequence[Collected],
    *,
    match_radius_arcsec: float = MATCH_RADIUS_ARCSEC,
    run_id: str | None = None,
) -> list[Added]:
    """Add samples to a lake, with a row of the ledger each: all of them in one transaction, or none.

    Parameters
    ----------
    lake
        Open for writing; or its catalogue.
    collected
        What `collect` returned, in the order in which they are to be added: the first position of a target counts.
    match_radius_arcsec
        A row this close to a known target is that target.
    run_id
        Run that adds them.

    Returns
    -------
    list of Added
        One for each of the samples.
    """
    catalog = lake.catalog if isinstance(lake, Lake) else lake
    lists = [
        TargetList(
            one.targets,
            one.sample,
            attempt=_attempt(one, match_radius_arcsec, run_id),
            has_stable_rows=one.has_stable_rows,
        )
        for one in collected
    ]
    return add_lists(catalog, lists, radius_arcsec=match_radius_arcsec)


def _attempt(one: Collected, match_radius_arcsec: float, run_id: str | None) -> Attempt:
    """Return the row of the ledger: what was asked, when, of whom, and what came of it."""
    question = hashlib.blake2b(f"{one.sample} {one.service} {one.query}".encode(), digest_size=8).hexdigest()
    parameters = {
        "sample": one.sample,
        "query": one.query,
        "expected": one.expected,
        "seen": one.seen and one.seen.isoformat(),
        "match_radius_arcsec": match_radius_arcsec,
    }
    return Attempt(
        archive=one.service,
        release=one.release,
        granule=f"{SAMPLE_GRANULE}{one.sample}:{question}",
        status="done",
        started_at=one.asked_at,
        n_targets=one.targets.num_rows,
        n_sources=one.answered,
        seconds=one.seconds,
        parameters=canonical(parameters),
        reason="; ".join(one.remarks) or None,
        endpoint=one.endpoint,
        requests=one.requests,
        run_id=run_id,
    )


def sample_key(name: str) -> str:
    """Return our name of a sample that the light-curve collector of Fornax calls otherwise.

    Examples
    --------
    >>> sample_key("Yang"), sample_key("SDSS"), sample_key("ZTF_objectid"), sample_key("yang18")
    ('yang18', 'sdss', 'ztf_names', 'yang18')
    """
    given = re.sub(r"^get_|_sample$", "", name.strip().lower())
    key = _COLLECTORS.get(given, given)
    if key not in known_samples():
        raise unknown("sample", name, [*known_samples(), *_COLLECTORS])
    return key


def translated(name: str, parameters: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Translate a sample of the collector with its parameters into calls of `collect`: name and parameters of each.

    Our own names and parameters stay as they are.

    Raises
    ------
    ConfigurationError
        If a sample is unknown, or a list of positions is not in degrees.

    Examples
    --------
    >>> translated("SDSS", {"num": 10, "zmin": 0.5, "zmax": 2, "randomize_z": True})
    [('sdss', {'num': 10, 'zmin': 0.5, 'zmax': 2, 'seed': 0})]
    >>> translated("papers_list", {"paper_kwargs": [{"paper_link": "2019A&A...627A..33D", "label": "Cicco19"}]})
    [('paper', {'paper': '2019A&A...627A..33D', 'label': 'Cicco19'})]
    """
    key = sample_key(name)
    if "paper_kwargs" in parameters:
        return [made for one in parameters["paper_kwargs"] for made in translated("paper", one)]
    if str(parameters.get("unit", "deg")).lower() not in ("deg", "degree", "degrees"):
        raise ConfigurationError(f"the list's positions cannot be in {parameters['unit']}", hint="give degrees")
    ours = {_COLLECTORS_PARAMETERS.get(name, name): value for name, value in parameters.items() if name != "unit"}
    ours.pop("verbose", None)
    if ours.pop("randomize_z", False):
        ours.setdefault("seed", 0)
    if name.strip().lower() != key and not ours:
        ours = dict(_COLLECTORS_DEFAULTS.get(key, {}))
    if key == "sdss" and ours.get("num") == 0:  # the collector asks for nothing then
        return []
    return [(key, ours)]
