"""What `import lightlake` offers: lakes, pulls and samples for scripts and notebooks, without Prefect."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lake.errors import ConfigurationError, ReadOnly
from lake.export.forms import Form
from lake.query import Lake as QueryLake
from lake.settings import load_settings
from lake.store.failures import READING_ONLY
from lake.text import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from lake.commit.targets import Added
    from tasks.pull.refresh import Refreshed
    from tasks.pull.report import PullReport
    from tasks.samples.given import AddedTargets

# The page that helps with errors from here.
HELP_TOPIC = "how-to/python"


class Targets:
    """The targets of a lake: called, it returns them; `add` adds some.

    Parameters
    ----------
    lake
        The lake.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def __call__(self, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return all targets, or those of a sample, with their labels and other names; see `lake.query.Lake`."""
        return self._lake.all_targets(sample, form=form)

    def __repr__(self) -> str:
        n = self._lake.run("SELECT count(*) AS n FROM targets", None)["n"][0].as_py()
        return f"<{counted(n, 'target')} of {self._lake!r}>"

    def _repr_html_(self) -> str:
        from lake.export.html import table_html

        return table_html(self())

    def add(
        self,
        targets: Any,
        sample: str,
        *,
        label: str | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        frame: str | None = None,
        epoch: float | None = None,
        match_radius_arcsec: float = 1.0,
        catalogue: str | None = None,
        bibcode: str | None = None,
        skip_bad: bool = False,
        again: bool = False,
    ) -> AddedTargets:
        """Add targets under a sample. If any row is bad, none is added.

        The columns of a table are found as in lists of targets: by UCD or name, with units and frames. Names without
        positions are looked up by SIMBAD, NED and VizieR, once.

        Parameters
        ----------
        targets
            A DataFrame of pandas or polars, a Table of astropy or Arrow, a dict of columns, the path of a file, a
            name, or a list of names.
        sample
            Name of the sample.
        label
            Column that holds each target's label; None: the sample's name labels them all.
        ra, dec, name
            Columns of positions and names, if they are not recognised.
        frame
            Frame of the positions in astropy's words, if the table does not say it: icrs, fk5, galactic.
        epoch
            Julian year of the positions, such as 2016.0, where the table has none.
        match_radius_arcsec
            A row this close to a known target is that target. With 0 each row is a target of its own.
        catalogue
            What to call the list in the lake; None: the name of the file.
        bibcode
            Paper that lists the targets.
        skip_bad
            Add the other rows; the result has the bad ones.
        again
            Look names up that the lake knows already, too.

        Raises
        ------
        ConfigurationError
            If the table has neither positions nor names, or a row is bad.
        ReadOnly
            If the lake cannot be written.
        ArchiveError
            If a service of names does not answer, after retries.

        Examples
        --------
        >>> import lightlake
        >>> import pandas as pd
        >>> table = pd.DataFrame({"name": ["C"], "ra": [150.1], "dec": [2.2], "class": ["QSO"]})
        >>> with lightlake.open("my-lake") as lake:
        ...     added = lake.targets.add(table, "quasars", label="class")
        ...     added.new, len(lake.targets("quasars"))
        (1, 3)
        """
        from tasks.progress import Bars
        from tasks.samples.given import add_given

        with Bars() as bars, self._lake.for_writing() as writable:
            total = len(targets) if hasattr(targets, "__len__") and not isinstance(targets, str | dict) else 1
            bars.begin(sample, total)
            added = add_given(
                writable,
                targets,
                sample,
                match_radius_arcsec=match_radius_arcsec,
                catalogue=catalogue,
                bibcode=bibcode,
                skip_bad=skip_bad,
                again=again,
                label_column=label,
                ra_column=ra,
                dec_column=dec,
                name_column=name,
                frame=frame,
                epoch=epoch,
            )
            bars.advance(sample, total)
        return added


class Lake(QueryLake):
    """A lake, as `lake.query.Lake`; `targets` also adds targets."""

    @property
    def targets(self) -> Targets:
        """The targets: ``lake.targets()`` returns them, ``lake.targets.add(table, "sample")`` adds some."""
        return Targets(self)

    def all_targets(self, sample: str | None = None, *, form: Form = "arrow") -> Any:
        """Return all targets, or those of a sample."""
        return super().targets(sample, form=form)

    def for_writing(self) -> QueryLake:
        """Open the same lake once more, for writing.

        Raises
        ------
        ReadOnly
            If it is for SQL of strangers.
        """
        if self.confined:
            raise ReadOnly(f"the lake at {self.storage.root} is open for SQL of strangers", hint=READING_ONLY)
        return QueryLake(str(self.storage.root), self.settings, writable=True)


def open_lake(url: str | os.PathLike[str] | None = None, *, confined: bool = False, writable: bool = False) -> Lake:
    """Open a lake; in IPython, Arrow tables are shown as HTML from then on."""
    show_arrow()
    return Lake(url, confined=confined, writable=writable)


def create_lake(url: str | os.PathLike[str] | None = None) -> Lake:
    """Make a lake, or bring an older one to this version, and open it."""
    from lake.store.catalog import Catalog
    from lake.store.storage import Storage
    from lake.upkeep.renaming import rename_archives

    settings = load_settings()
    catalog = Catalog(Storage.from_url(url if url is not None else settings.url), settings)
    try:
        catalog.create()
        rename_archives(catalog)
    finally:
        catalog.close()
    return open_lake(url)


def show_arrow() -> None:
    """Let IPython, if this is it, show Arrow tables with units, and light curves with a figure."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        from lake.export.html import table_html

        shell.display_formatter.formatters["text/html"].for_type_by_name("pyarrow.lib", "Table", table_html)


def url_of(lake: Any) -> str:
    """Return the address of a lake that is open, or is given by its address."""
    if isinstance(lake, QueryLake):
        return str(lake.storage.root)
    from lake.names import check_not_blank

    check_not_blank("lake", None if lake is None else str(lake))
    with QueryLake(lake, writable=True) as opened:
        return str(opened.storage.root)


def pull(archive: str, lake: Any, sample: str | None, targets: Any, **options: Any) -> PullReport | Refreshed:
    """Pull one archive, or all of a service; see `lightlake.pull`."""
    from flows import local
    from flows.forms import PullOptions
    from lake.names import check_sample
    from tasks.sources.registry import expand, find
    from tasks.sources.releases import NEWEST

    names, given = expand([archive]), options.get("parameters") or {}
    for name in names:
        release = options.get("release")
        find(name, None if release == NEWEST else release).with_defaults(given)
    if len(names) > 1:
        if options.pop("release", None) is not None:
            raise ConfigurationError(f"{archive} is several archives", hint="name one of them to pull a release")
        parameters = dict.fromkeys(names, given)
        return refresh(names, lake, sample, targets, **{**options, "parameters": parameters})
    made = PullOptions.of(archive=names[0], sample=sample, **options)
    url = url_of(lake)
    _add_first(url, sample, targets)
    with QueryLake(url) as opened:
        check_sample(opened, sample)
    outcome = local.pull(url, made.request, load_settings(), command=False)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def refresh(archives: Sequence[str] | None, lake: Any, sample: str | None, targets: Any, **options: Any) -> Refreshed:
    """Pull several archives side by side; see `lightlake.refresh`."""
    from flows import local
    from flows.forms import RefreshOptions
    from lake.names import check_sample
    from tasks.sources.registry import check_parameters, expand

    names = expand(list(archives) if archives else None)
    made = RefreshOptions.of(archives=names, sample=sample, **options)
    parameters = check_parameters(made.parameters, names)
    url = url_of(lake)
    _add_first(url, sample, targets)
    with QueryLake(url) as opened:
        check_sample(opened, sample)
    return local.refresh(
        url, names, command=False, parameters=parameters, sample=sample, select=made.select, newest=made.newest
    )


def _add_first(url: str, sample: str | None, targets: Any) -> None:
    if targets is None:
        return
    if sample is None:
        raise ConfigurationError("targets are added to a sample", hint="name it: sample='...'")
    with Lake(url) as opened:
        opened.targets.add(targets, sample)


def list_samples() -> pa.Table:
    """Return the samples of the literature; see `lightlake.samples.list`."""
    import pyarrow as pa

    from tasks.samples.literature import LITERATURE

    show_arrow()
    return pa.Table.from_pylist(
        [
            {
                "name": one.key,
                "paper": one.paper,
                "bibcode": one.bibcode,
                "service": one.service,
                "table": one.table,
                "label": one.label,
                "expected": one.expected,
                "in_paper": one.in_paper,
            }
            for one in LITERATURE.values()
        ]
    )


def add_samples(names: Sequence[str], lake: Any, match_radius_arcsec: float, parameters: dict[str, Any]) -> list[Added]:
    """Get samples and add them, all or none; see `lightlake.samples.add`."""
    from tasks.events import announce
    from tasks.progress import Bars
    from tasks.samples.collect import add_collected, collect, translated
    from tasks.worker import logger

    if not names:
        raise ConfigurationError("no sample is named", hint="see them with: lightlake.samples.list()")
    if parameters and len(names) > 1:
        raise ConfigurationError(f"{', '.join(parameters)} are of one sample", hint="add one sample at a time")
    if match_radius_arcsec < 0:
        raise ConfigurationError(f"match_radius_arcsec cannot be {match_radius_arcsec:g}", hint="give 0 or more")
    asked = [one for name in dict.fromkeys(names) for one in translated(name, parameters)]
    url = url_of(lake)
    with Bars() as bars, QueryLake(url, writable=True) as opened:
        bars.begin("samples", len(asked))
        collected = []
        for name, given in asked:
            collected += collect(name, given, opened.settings)
            bars.advance("samples", 1)
        added = add_collected(opened, collected, match_radius_arcsec=match_radius_arcsec)
    for got, done in zip(collected, added, strict=True):
        if (done.new or done.labels) and (trouble := announce(got.sample, url, done)):
            logger.warning("Prefect was not told of sample %s: %s", got.sample, trouble)
    return added
