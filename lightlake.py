"""Lightlake in Python: open a lake, add targets, pull archives, and take the light curves away in other forms.

>>> import lightlake
>>> with lightlake.open("my-lake") as lake:
...     curve = lake.light_curve("A", band="g", form="astropy")
>>> len(curve), str(curve["flux"].unit)
(3, 'mJy')

The functions run in this process, without Prefect, and show their progress on a terminal or in a notebook. What goes
wrong is a `LightlakeError`, whose text says what to do.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.interactive import Lake
    from lake.commit.targets import Added
    from lake.errors import LightlakeError
    from tasks.pull.refresh import Refreshed
    from tasks.pull.report import PullReport

__all__ = ["Lake", "LightlakeError", "create", "open", "pull", "refresh", "samples"]

# The packages that Lightlake consists of. Their names are short, and folders of users have them, too.
_PACKAGES = ("lake", "tasks", "flows", "deployments")

# What is imported when it is asked for: `import lightlake` itself takes no time.
_LATER = {"Lake": "flows.interactive", "LightlakeError": "lake.errors"}


def _check_packages() -> None:
    """Check that the packages are those beside this module, and not modules of the user's with the same names.

    Raises
    ------
    ImportError
        If one is not; the message says which file is in the way.
    """
    ours = Path(__file__).resolve().parent
    for name in _PACKAGES:
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None) if module is not None else importlib.util.find_spec(name)
        origin = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
        found = Path(origin).resolve() if origin is not None else None
        if found == ours / name / "__init__.py":
            continue
        if found is None:
            raise ImportError(f"lightlake lacks its package {name!r} beside {ours}: install it again")
        where = found.parent if found.name == "__init__.py" else found
        raise ImportError(
            f"{where} hides the package {name!r} of lightlake: rename it, or start Python in another folder"
        )


_check_packages()


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'lightlake' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def open(url: str | os.PathLike[str] | None = None, *, confined: bool = False, writable: bool = False) -> Lake:
    """Open a lake, for reading unless `writable`.

    Parameters
    ----------
    url
        Folder, or s3://BUCKET/PREFIX; None: LIGHTLAKE_URL.
    confined
        For SQL of strangers: see `lake.query.Lake`.
    writable
        Allow commits. `targets.add` and `pull` open the lake for writing by themselves.

    Returns
    -------
    Lake
        With `sql`, `light_curve`, `cone`, `targets`, `targets.add` and `coverage`.

    Raises
    ------
    CatalogError, ConfigurationError
        If there is no lake, or it cannot be read.

    Examples
    --------
    >>> with lightlake.open("my-lake") as lake:
    ...     lake.targets("quasars", form="pandas")["name"].tolist()
    ['A', 'B']
    """
    from flows.interactive import open_lake

    return open_lake(url, confined=confined, writable=writable)


def create(url: str | os.PathLike[str] | None = None) -> Lake:
    """Make a lake, and open it; one that is there is opened, and brought to this version if it is older.

    Parameters
    ----------
    url
        Folder, or s3://BUCKET/PREFIX; None: LIGHTLAKE_URL.

    Examples
    --------
    >>> with lightlake.create("new-lake") as lake:
    ...     lake.targets().num_rows
    0
    """
    from flows.interactive import create_lake

    return create_lake(url)


def pull(
    archive: str,
    *,
    lake: Lake | str | os.PathLike[str] | None = None,
    sample: str | None = None,
    targets: Any = None,
    parameters: Mapping[str, Any] | None = None,
    release: str | None = None,
    again: bool = False,
    retry_failed: bool = False,
) -> PullReport | Refreshed:
    """Pull one archive for every target that it has not answered yet.

    Parameters
    ----------
    archive
        As `lightlake archives` names it; or a service, for all its archives.
    lake
        A lake that is open, or its address; None: LIGHTLAKE_URL.
    sample
        Only targets of this sample; None: all.
    targets
        Add these to the sample first, as `lake.targets.add` takes them.
    parameters
        Other than the archive's defaults, such as ``{"radius_arcsec": 2}``.
    release
        Another data release than the one that the lake shows, or newest.
    again
        Ask for what was answered before, too.
    retry_failed
        Ask for exactly the targets that failed or were rejected before.

    Returns
    -------
    PullReport
        Counts, and whether something is missing (`lost`); of a service with several archives, as `refresh` does.

    Raises
    ------
    LightlakeError
        If an option makes no sense, or the archive cannot be asked at all.

    Examples
    --------
    >>> report = lightlake.pull("icecube", lake="my-lake", sample="quasars")
    >>> report.asked, report.lost
    (2, False)
    """
    from flows import interactive

    return interactive.pull(
        archive,
        lake,
        sample,
        targets,
        parameters=dict(parameters) if parameters else None,
        release=release,
        again=again,
        retry_failed=retry_failed,
    )


def refresh(
    archives: Sequence[str] | str | None = None,
    *,
    lake: Lake | str | os.PathLike[str] | None = None,
    sample: str | None = None,
    targets: Any = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    newest: bool = False,
    again: bool = False,
    retry_failed: bool = False,
) -> Refreshed:
    """Pull all archives, or those named, side by side.

    Parameters
    ----------
    archives
        Names of archives, or of services for all of theirs; None: all.
    lake, sample, targets, again, retry_failed
        As in `pull`.
    parameters
        By archive, other than the defaults.
    newest
        Then pull the newest release, too, where releases lie side by side.

    Returns
    -------
    Refreshed
        A report and a line for each archive; `lost` has the lines of those with something missing.

    Raises
    ------
    LightlakeError
        If an option makes no sense. An archive that fails is in `lost`, and does not hold up the others.

    Examples
    --------
    >>> done = lightlake.refresh(["icecube"], lake="my-lake")
    >>> len(done.reports), done.lost
    (1, [])
    """
    from flows import interactive

    return interactive.refresh(
        [archives] if isinstance(archives, str) else archives,
        lake,
        sample,
        targets,
        parameters={name: dict(given) for name, given in parameters.items()} if parameters else None,
        newest=newest,
        again=again,
        retry_failed=retry_failed,
    )


class _Samples:
    """Samples of the literature, of papers, of SDSS and of ZTF: `list` and `add`."""

    def __repr__(self) -> str:
        return "<samples of the literature: lightlake.samples.list(), lightlake.samples.add(name)>"

    def list(self) -> pa.Table:
        """Return the samples that are known by name: paper, service, label, and how many targets they have.

        Examples
        --------
        >>> "green22" in lightlake.samples.list()["name"].to_pylist()
        True
        """
        from flows.interactive import list_samples

        return list_samples()

    def add(
        self,
        *names: str,
        lake: Lake | str | os.PathLike[str] | None = None,
        match_radius_arcsec: float = 1.0,
        **parameters: Any,
    ) -> Sequence[Added]:
        """Get samples from the services that have them, and add them to a lake: all of them, or none.

        Parameters
        ----------
        *names
            As `list` has them; or ``paper``, ``sdss`` or ``ztf``, with parameters.
        lake
            A lake that is open, or its address; None: LIGHTLAKE_URL.
        match_radius_arcsec
            A row this close to a known target is that target.
        **parameters
            Of one sample: ``paper="2018ApJ...862..109Y", label="Yang"``, or ``num=10, zmin=0.5`` of SDSS.

        Returns
        -------
        list of Added
            For each sample: rows, new and known targets, new labels.

        Raises
        ------
        ConfigurationError
            If there is no such sample or parameter.
        ArchiveError
            If a sample cannot be had whole, after retries.

        Examples
        --------
        >>> (added,) = lightlake.samples.add("macleod16", lake="my-lake")
        >>> added.rows, added.new
        (2, 2)
        """
        from flows.interactive import add_samples

        return add_samples(names, lake, match_radius_arcsec, parameters)


samples = _Samples()
