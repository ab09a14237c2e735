"""Get samples of targets by their names, and add them to a lake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lake.commit.targets import MATCH_RADIUS_ARCSEC, Added
from lake.query import Lake
from lake.settings import Settings
from lake.store.catalog import Catalog
from tasks.options import Options
from tasks.samples.sample import Collected


def known_samples() -> dict[str, type[Options]]:
    """Return the names that `collect` takes, each with the model of its parameters.

    The samples of the literature by their keys, then paper, sdss, ztf_names and file.
    """
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


def sample_key(name: str) -> str:
    """Return our name of a sample that the light-curve collector of Fornax calls otherwise.

    Examples
    --------
    >>> sample_key("Yang"), sample_key("SDSS"), sample_key("ZTF_objectid"), sample_key("yang18")
    ('yang18', 'sdss', 'ztf_names', 'yang18')
    """
    raise NotImplementedError


def translated(name: str, parameters: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Translate a sample of the collector with its parameters into calls of `collect`: name and parameters of each.

    Examples
    --------
    >>> translated("SDSS", {"num": 10, "zmin": 0.5, "zmax": 2, "randomize_z": True})
    [('sdss', {'num': 10, 'zmin': 0.5, 'zmax': 2, 'seed': 0})]
    >>> translated("papers_list", {"paper_kwargs": [{"paper_link": "2019A&A...627A..33D", "label": "Cicco19"}]})
    [('paper', {'paper': '2019A&A...627A..33D', 'label': 'Cicco19'})]
    """
    raise NotImplementedError
