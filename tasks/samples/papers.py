"""Get the objects of a paper from the service that has them, and keep those that are the sample."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa

from lake.errors import ConfigurationError
from lake.settings import Settings
from lake.text import counted
from tasks.samples import ned, simbad_papers, vizier
from tasks.samples.answers import Objects
from tasks.samples.literature import LITERATURE, LiteratureSample
from tasks.samples.options import LiteratureOptions, PaperOptions
from tasks.samples.sample import COLLECTED, Collected
from tasks.samples.selection import as_text
from tasks.samples.services import SERVICES, Asking

_BIBCODE = re.compile(r"(1[89]|20)\d\d[A-Za-z&][A-Za-z0-9&.]{13}[A-Za-z.]")


def literature(key: str, options: LiteratureOptions, settings: Settings) -> Collected:
    """Get a sample of the literature."""
    return of_paper(LITERATURE[key], settings, sample=options.sample or key, label=options.label)


def paper(options: PaperOptions, settings: Settings) -> Collected:
    """Get all objects that a service lists of a paper.

    Raises
    ------
    ConfigurationError
        If it is no bibcode, or VizieR is to be asked for no table.
    """
    if not _BIBCODE.fullmatch(options.paper):
        raise ConfigurationError(
            f"{options.paper!r} is no bibcode", hint="it has 19 characters, such as 2018ApJ...862..109Y"
        )
    service = "vizier" if options.table else options.service
    if service == "vizier" and not options.table:
        raise ConfigurationError("VizieR is asked for tables", hint="name one: --table J/ApJ/933/180/table2")
    label = options.label or options.paper
    known = LiteratureSample(options.sample or label, options.paper, options.paper, label, service, options.table)
    found = of_paper(known, settings, sample=options.sample or label)
    better = [one.key for one in LITERATURE.values() if one.bibcode == options.paper and (one.table or one.conditions)]
    if better and not options.table:
        remark = f"{service} lists objects that are not the paper's sample: see {' and '.join(better)}"
        found = _with_remark(found, remark)
    return found


def of_paper(known: LiteratureSample, settings: Settings, *, sample: str, label: str | None = None) -> Collected:
    """Ask the service of a sample, and keep the rows on which its conditions hold.

    Raises
    ------
    ArchiveError
        If the service does not answer with a whole list, or if the conditions hold on no row.
    """
    asking = Asking(SERVICES[known.service], settings)
    found = _ask(known, asking)
    holds = np.ones(len(found.ra), bool)
    for condition in known.conditions:
        holds &= condition.holds(found.answer, found.ra, found.dec)
    selection = as_text(known.conditions)
    if not holds.any():
        raise found.answer.service.failed(
            f"none of its {counted(len(holds), 'row')} of {known.bibcode} is of the sample {known.key}: {selection}",
            found.answer.url,
            transient=False,
            hint=f"get all of them with: lightlake samples add --paper {known.bibcode} --service {known.service}",
        )
    n = int(holds.sum())
    targets = pa.table(
        {
            "name": found.names,
            "ra": found.ra,
            "dec": found.dec,
            "redshift": found.redshifts,
            "label": [label or known.label] * len(holds),
            "bibcode": [known.bibcode] * len(holds),
            "catalogue": [found.catalogue] * len(holds),
            "row_in_catalogue": found.rows,
            "name_in_catalogue": pa.nulls(len(holds), pa.string()),
        },
        COLLECTED,
    ).filter(pa.array(holds))
    return Collected(
        sample=sample,
        targets=targets,
        service=known.service,
        endpoint=found.answer.url,
        query=found.query + (f" [kept: {selection}]" if selection else ""),
        asked_at=asking.asked_at,
        release=found.catalogue,
        answered=len(holds),
        expected=known.expected,
        seen=known.seen,
        remarks=_remarks(known, n),
        seconds=asking.seconds,
        requests=asking.requests,
        has_stable_rows=found.has_stable_rows,
    )


def _ask(known: LiteratureSample, asking: Asking) -> Objects:
    if known.service == "vizier":
        return vizier.objects_of(asking, known.bibcode, known.table or "")
    ask = ned.objects_of if known.service == "ned" else simbad_papers.objects_of
    return ask(asking, known.bibcode)


def _remarks(known: LiteratureSample, n: int) -> tuple[str, ...]:
    remarks = []
    if known.expected is not None and n != known.expected:
        where = f"{known.expected} were seen on {known.seen}" if known.seen else f"the paper says {known.expected}"
        remarks.append(f"{counted(n, 'row')}, where {where}")
    if known.in_paper:
        remarks.append(f"the paper has {known.in_paper}")
    return tuple(remarks)


def _with_remark(found: Collected, remark: str) -> Collected:
    return replace(found, remarks=(*found.remarks, remark))
