"""The command `lightlake samples`: list samples of the literature, and add samples to a lake."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from cyclopts import App, Parameter

from lake.cli import LakeURL
from lake.errors import ConfigurationError
from lake.output import TABLE, TableOptions, put, say, terminal_width
from lake.settings import load_settings
from lake.text import counted, one_line
from tasks.options import spread
from tasks.samples.options import PaperOptions, SdssOptions, ZtfOptions

if TYPE_CHECKING:
    from lake.commit.targets import Added
    from tasks.samples.sample import Collected

samples = App(name="samples", help="List samples of the literature, and add samples to a lake.")
add = App(name="add", help="Get samples of the literature, of papers, of SDSS or ZTF, and add them to a lake.")
samples.command(add)

MatchRadius = Annotated[
    float,
    Parameter(
        help="A row within this many arcsec of a known target is that target. With 0 each row is a target of its own."
    ),
]


@samples.default
def list_samples(
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="The same as --output json.")] = False,
    form: TableOptions = TABLE,
) -> int:
    """List the samples that are known by name.

    Each has its paper, service, label, and how many targets there were when seen.
    """
    from tasks.samples.literature import LITERATURE
    from tasks.samples.selection import as_text

    rows = [
        {
            "name": one.key,
            "paper": one.paper,
            "bibcode": one.bibcode,
            "service": one.service,
            "table": one.table,
            "label": one.label,
            "expected": one.expected,
            "seen": one.seen and one.seen.isoformat(),
            "selection": as_text(one.conditions) or None,
            "selection_source": one.source,
            "in_paper": one.in_paper,
        }
        for one in LITERATURE.values()
    ]
    if as_json or form.form == "json":
        put(json.dumps(rows, indent=2), form.file)
        return 0
    if not form.is_text:
        form.show(pa.Table.from_pylist(rows))
        return 0
    for row in rows:
        seen = f"on {row['seen']}" if row["seen"] else "in the paper"
        count = "number not known" if row["expected"] is None else f"{row['expected']} {seen}"
        where = f" (VizieR, {row['table']})" if row["table"] else f" ({row['service'].upper()})"
        say(f"{row['name']:14} {row['label']:16} {row['bibcode']}  {count}")
        _say_below(f"{row['paper']}: {row['in_paper']}{where}")
        if row["selection"]:
            _say_below(f"kept: {row['selection']} ({row['selection_source']})")
    say("others: lightlake samples add --paper BIBCODE --label LABEL, samples add sdss,\nsamples add ztf")
    return 0


def _say_below(text: str) -> None:
    say(textwrap.indent(textwrap.fill(text, (terminal_width() or 10_000) - 15, break_on_hyphens=False), 15 * " "))


@add.default
def add_named(
    *names: str,
    paper: Annotated[list[str] | None, Parameter(negative=())] = None,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    service: str = "ned",
    table: str | None = None,
    match_radius: MatchRadius = 1.0,
    lake: LakeURL = None,
) -> int:
    """Add samples by name, and the objects of papers.

    If one of them cannot be had whole, nothing is added.

    Parameters
    ----------
    names
        Samples, by the names that `lightlake samples` lists.
    paper
        Bibcode of a paper; may be given several times.
    label
        Label of the objects of each paper, in the same order.
    service
        Service that is asked for the papers: ned, simbad or vizier.
    table
        Table of the paper at VizieR, which is asked then.
    """
    from tasks.samples.literature import LITERATURE

    papers, labels = paper or [], label or []
    if labels and len(labels) != len(papers):
        raise ConfigurationError(
            f"{counted(len(papers), 'paper')} and {counted(len(labels), 'label')}", hint="give each --paper a --label"
        )
    if table and len(papers) != 1:
        raise ConfigurationError("--table is of one paper", hint="give one --paper with it")
    if not (names or papers):
        raise ConfigurationError("no sample is named", hint="see them with: lightlake samples")
    if others := [name for name in names if name not in LITERATURE]:
        from tasks.samples.collect import sample_key

        if (key := sample_key(others[0])) not in LITERATURE:
            commands = {"sdss": "samples add sdss", "ztf_names": "samples add ztf", "file": "targets add FILE"}
            how = commands.get(key, "samples add --paper BIBCODE --label LABEL")
            raise ConfigurationError(f"{others[0]!r} has a command of its own", hint=f"lightlake {how}")
        names = tuple(sample_key(name) for name in names)
    asked: list[tuple[str, Mapping[str, Any]]] = [(name, {}) for name in dict.fromkeys(names)]
    for number, bibcode in enumerate(papers):
        given = PaperOptions.of(
            paper=bibcode, label=labels[number] if labels else None, service=service, table=table
        ).model_dump()
        asked.append(("paper", given))
    return _add(asked, match_radius, lake)


@add.command
@spread(SdssOptions, command=True)
def sdss(options: SdssOptions, *, match_radius: MatchRadius = 1.0, lake: LakeURL = None) -> int:
    """Add quasars of SDSS.

    They are the same ones every time, in order of specObjID, or drawn at random by a seed.
    """
    return _add([("sdss", options.model_dump())], match_radius, lake)


@add.command
@spread(ZtfOptions, command=True)
def ztf(options: ZtfOptions, *, match_radius: MatchRadius = 1.0, lake: LakeURL = None) -> int:
    """Add objects of ZTF by their names, at the mean positions that ALeRCE has."""
    return _add([("ztf_names", options.model_dump())], match_radius, lake)


def _add(asked: Sequence[tuple[str, Mapping[str, Any]]], match_radius: float, lake: str | None) -> int:
    """Get all samples, then add them."""
    from lake.query import Lake
    from tasks.events import announce
    from tasks.samples.collect import add_collected, collect

    if match_radius < 0:
        raise ConfigurationError(f"--match-radius cannot be {match_radius:g}", hint="give arcsec, 0 or more")
    settings = load_settings(url=lake)
    with Lake(lake, writable=True) as opened:
        collected = [one for name, parameters in asked for one in collect(name, parameters, settings)]
        added = add_collected(opened, collected, match_radius_arcsec=match_radius)
        url = str(opened.storage.root)
    for got, done in zip(collected, added, strict=True):
        _say(got, done)
        if (done.new or done.labels) and (trouble := announce(got.sample, url, done)):
            say(f"Prefect was not told, so that nothing is pulled by itself (run: lightlake refresh): {trouble}")
    return 0


def _say(got: Collected, done: Added) -> None:
    counts = f"{counted(done.new, 'new target')}, {done.known} known, {counted(done.labels, 'new label')}"
    say(one_line(f"{got.sample}: {counted(done.rows, 'row')} of {got.service}: {counts}"))
    for remark in got.remarks:
        say(one_line(f"note: {remark}"))
