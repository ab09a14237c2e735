"""Write a report of a lake: what it holds, of what it was asked for, and what is missing, on one page."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lake.query import Lake
from lake.text import counted
from lake.upkeep.run_status import state_of
from tasks.analysis.html_pages import Column, Markup, Page
from tasks.analysis.pages import escaped
from tasks.analysis.report import queries
from tasks.analysis.report.grids import SIGNS, STYLE, Cell, bars, grid, legend, level, moment, share_level, short, size
from tasks.analysis.report.queries import Answer, ask
from tasks.analysis.report.sky import sky_svg

Row = dict[str, Any]
Drawing = Callable[[list[Row]], list[Markup]]

# Sections of the page, by the name of their query; those in a pair stand side by side where there is room.
_TITLES = {
    "totals": "In all",
    "answers": "Answers by archive",
    "sky": "On the sky",
    "coverage": "Targets by archive",
    "years": "Points by year",
    "samples": "Samples by archive",
    "ages": "Age of answers",
    "missing": "What is missing",
    "changes": "What changed in a week",
    "runs": "Runs",
    "sizes": "Sizes",
}
_PAIRS = (
    ("answers", "sky"),
    ("coverage", "years"),
    ("ages", "samples"),
    ("missing",),
    ("changes",),
    ("runs",),
    ("sizes",),
)
_KINDS = ("found", "empty", "failed", "rejected", "never asked")

_COPY = """
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy).textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "copied"; }
    catch (error) {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
      button.textContent = "selected: press Ctrl-C";
    }
  });
}
"""


@dataclass(frozen=True)
class Report:
    """A report that was written, and a line that sums it up."""

    path: Path
    summary: str


def write_report(lake: Lake, path: Path, known: Sequence[str] = (), now: datetime | None = None) -> Report:
    """Write the page.

    Parameters
    ----------
    lake
        The lake.
    path
        The file.
    known
        Archives that a lake can be asked for; those that this one never asked are named.
    now
        The time of the report.
    """
    now = now or datetime.now(UTC)
    answers = ask(lake, now)
    rows = {name: answer.table.to_pylist() for name, answer in answers.items()}
    for row in rows["runs"]:
        row["state"] = state_of(lake, row)
    page = Page(title_of(lake), {f"#{name}": title for name, title in _TITLES.items()} | {"#queries": "Queries"})
    page.style, page.scripts = STYLE, [_COPY]
    (totals,) = rows["totals"]
    page.text(f"{summary_of(totals)}. As of {moment(now.astimezone(UTC))} UTC. Every number comes from a query below.")
    page.markup(Markup('<div id="totals"></div>'))
    page.facts({what: Markup(f'<a href="#query-totals">{escaped(text)}</a>') for what, text in _facts(totals).items()})
    for pair in _PAIRS:
        inner = "\n".join(_section(one, _DRAWN[one](rows[one])) for one in pair)
        page.markup(Markup(f'<div class="pair">{inner}</div>' if len(pair) > 1 else inner))
        if pair == ("missing",):
            page.markup(_never_asked(rows["answers"], known))
    page.markup(_queries(answers))
    return Report(page.write(path.parent, path.name), summary_of(totals))


def title_of(lake: Lake) -> str:
    """Return the title of a lake's report: the end of its path, which tells one lake from the next."""
    return f"Report of {'/'.join([part for part in lake.storage.root.parts if part.strip('/')][-2:])}"


def summary_of(totals: Mapping[str, Any]) -> str:
    """Return what a lake holds, in a few words."""
    lost = totals["failed_or_rejected"]
    return (
        f"{_many(totals['targets'], 'target')} at {_many(totals['archives'], 'archive')}, "
        f"{_many(totals['measurements'], 'point')}, {size(totals['bytes'])}; "
        + (f"{_many(lost, 'answer')} failed or rejected" if lost else "no answer failed or was rejected")
    )


def _many(n: int, one: str) -> str:
    return counted(n, one).replace(str(n), f"{n:,}", 1)


def _facts(totals: Row) -> dict[str, str]:
    return {
        "targets": f"{totals['targets']:,}",
        "samples": f"{totals['samples']:,}",
        "archives asked": f"{totals['archives']:,}",
        "points": f"{totals['measurements']:,}",
        "failed or rejected": f"{totals['failed_or_rejected']:,}",
        "runs": f"{totals['runs']:,}",
        "Parquet files": f"{totals['files']:,}",
        "of Parquet": size(totals["bytes"]),
    }


def _section(name: str, drawn: Sequence[Markup]) -> str:
    head = f'<h2 id="{name}">{_TITLES[name]} <a href="#query-{name}">query</a></h2>'
    return f"<section>{head}\n" + "\n".join(one.html for one in drawn) + "</section>"


def _note(text: str) -> Markup:
    return Markup(f'<p class="note">{escaped(text)}</p>')


def _table(columns: Sequence[Column], rows: Sequence[Row], kind: str = "list") -> Markup:
    heads = "".join(column.head() for column in columns)
    lines = "\n".join(f"<tr>{''.join(column.cell(row) for column in columns)}</tr>" for row in rows)
    return Markup(
        f'<div class="card"><table class="{kind}"><thead><tr>{heads}</tr></thead>\n<tbody>{lines}</tbody></table></div>'
    )


def _plain(key: str, title: str, form: str | None = None, kind: str = "") -> Column:
    return Column(key, title, form, kind, is_sortable=False)


def _answers(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No archive has been asked yet.")]
    drawn = [{**row, "bar": bar} for row, bar in zip(rows, bars(rows, _KINDS, "targets"), strict=True)]
    columns = [
        _plain("archive", "Archive"),
        _plain("bar", "Share of targets", kind="narrow-hidden"),
        *(_plain(kind.replace(" ", "_"), kind.capitalize(), ",d") for kind in _KINDS),
        _plain("measurements", "Points", ",d"),
    ]
    return [legend(None, _KINDS), _table(columns, drawn, "list tight")]


def _sky(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No targets yet: lightlake targets add FILE --sample NAME")]
    most = max(row["targets"] for row in rows)
    about = (
        "A dot for each target"
        if most == 1
        else f"{_many(len(rows), 'dot')}, each for the targets of a place: the larger, the more, up to {most:,}"
    )
    return [
        _note(f"{about}; its colour says how many points. Dashed: the plane of the Galaxy."),
        legend("points", unit="points"),
        Markup(f'<div class="card">{sky_svg(rows)}</div>'),
    ]


def _coverage(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No archive has been asked yet.")]
    archives = sorted({row["archive"] for row in rows})
    by_place: dict[int, dict[str, Row]] = {}
    for row in rows:
        by_place.setdefault(row["place"], {})[row["archive"]] = row
    lines = [(_target(one), [_status_cell(one[name]) for name in archives]) for one in by_place.values()]
    first = (
        f"The {_many(queries.MOST_TARGETS, 'target')} with" if len(by_place) == queries.MOST_TARGETS else "Those with"
    )
    return [
        _note(f"{first} most failed, then with most missing answers, stand first. A cell says how many points came."),
        legend("points", ("empty", "failed", "rejected", "never asked"), "points"),
        grid("Target", archives, lines),
    ]


def _target(row: Mapping[str, Row]) -> str:
    one = next(iter(row.values()))
    return str(one["name"] or one["target_id"])


def _status_cell(row: Row) -> Cell:
    n, status, about = row["measurements"], row["status"], f"{_target({'': row})}, {row['archive']}"
    if status == "found":
        return Cell(short(n), level(n), f"{about}: {_many(n, 'point')}", n)
    return Cell(SIGNS[status], status.replace(" ", "-"), f"{about}: {status}", status)


def _samples(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No sample has been asked for yet.")]
    archives = sorted({row["archive"] for row in rows})
    lines: dict[tuple[str, int], dict[str, Cell]] = {}
    for row in rows:
        found, lost, never, n = row["found"], row["lost"], row["never_asked"], row["targets"]
        about = f"{row['sample']}, {row['archive']}: {found:,} found of {n:,}, {lost:,} lost, {never:,} never asked"
        kind = "never-asked" if never == n else share_level(found, n) + (" lost" if lost else "")
        shown = "" if never == n else f"{100 * found / n:.0f}"
        lines.setdefault((row["sample"], n), {})[row["archive"]] = Cell(shown, kind, about, found)
    made = [(f"{name} ({n:,})", [cells[one] for one in archives]) for (name, n), cells in lines.items()]
    return [
        _note(
            f"Share of a sample's targets with data, in percent. The largest samples, {queries.MOST_SAMPLES} at most."
        ),
        legend("share", ("lost", "never asked")),
        grid("Sample", archives, made),
    ]


def _years(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No measurements yet.")]
    archives = sorted({row["archive"] for row in rows})
    found = {(row["year"], row["archive"]): row["measurements"] for row in rows}
    years = sorted({row["year"] for row in rows})
    if years[-1] - years[0] < 100:  # with years that have none, if they are not too many
        years = list(range(years[0], years[-1] + 1))

    def cell(year: int, archive: str) -> Cell:
        n = found.get((year, archive), 0)
        return Cell(short(n) if n else "", level(n), f"{archive}, {year}: {_many(n, 'point')}", n)

    lines = [(str(year), [cell(year, archive) for archive in archives]) for year in years]
    return [_note("Of observation, all releases."), legend("points", unit="points"), grid("Year", archives, lines)]


def _ages(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No answers yet.")]
    keys = [*(f"to_{high}_d" for high in queries.AGES), "older"]
    titles = [f"< {high} d" for high in queries.AGES] + [f"≥ {queries.AGES[-1]} d"]

    def line(row: Row) -> tuple[str, list[Cell]]:
        whole = sum(row[key] for key in keys)
        cells = [
            Cell(
                short(row[key]) if row[key] else "",
                share_level(row[key], whole),
                f"{row['archive']}, {title}: {_many(row[key], 'answer')}",
                row[key],
            )
            for key, title in zip(keys, titles, strict=True)
        ]
        oldest = moment(row["oldest"])
        cells.append(Cell(oldest[:10], "plain narrow-hidden", f"oldest answer: {oldest} UTC", oldest))
        return row["archive"] + (f" ({row['cadence']})" if row["cadence"] else ""), cells

    return [
        _note("Answers by age at the time of this report, without failed ones. Live archives are asked again."),
        legend("share", unit="of the archive's answers"),
        grid("Archive", [*titles, "oldest"], [line(row) for row in rows], kind="small ages"),
    ]


def _missing(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("Nothing failed and nothing was rejected.")]
    kinds = rows[0]["kinds"]
    columns = [
        _plain("archive", "Archive"),
        _plain("status", "Status"),
        _plain("targets", "Targets", ",d"),
        _plain("granules", "Granules", ",d"),
        _plain("reason", "Why", kind="why"),
        _plain("last_tried", "Last tried (UTC)", kind="narrow-hidden"),
    ]
    more = f" These are {len(rows)} of {kinds:,} kinds." if kinds > len(rows) else ""
    return [
        _note(
            "What failed is asked for again by the next run, what was rejected by: lightlake pull ARCHIVE "
            f"--retry-failed.{more}"
        ),
        _table(columns, [{**row, "last_tried": moment(row["last_tried"])} for row in rows]),
    ]


def _changes(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No measurement is new, changed or gone; or they are too many to be compared for a page.")]
    columns = [
        _plain("archive", "Archive"),
        _plain("new_points", "New points", ",d"),
        _plain("changed_points", "Changed", ",d"),
        _plain("gone_points", "Gone", ",d"),
        _plain("sources", "Sources", ",d"),
    ]
    named = f"lightlake changes --since {rows[0]['since_snapshot']}"
    return [
        _note(f"By key: what was pulled again and is the same is no change. Targets, brightenings, fadings: {named}"),
        _table(columns, rows),
    ]


def _never_asked(answers: Sequence[Row], known: Sequence[str]) -> Markup:
    """Say which targets archives were never asked for, and which archives were not asked at all."""
    parts = [f"{row['archive']} for {_many(row['never_asked'], 'target')}" for row in answers if row["never_asked"] > 0]
    lines = [f"Never asked: {', '.join(parts)}."] if parts else ["Every archive above was asked for every target."]
    others = sorted({*known} - {row["archive"] for row in answers})
    if others:
        lines.append(f"Not asked for any target: {', '.join(others)}.")
    return Markup(_note(" ".join(lines)).html)


def _runs(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No run yet.")]
    runs = rows[0]["runs"]
    shown = f"The last {len(rows)} of {_many(runs, 'run')}." if runs > len(rows) else f"All {_many(runs, 'run')}."
    columns = [
        _plain("run_id", "Run", kind="why"),
        _plain("state", "State"),
        _plain("name", "What", kind="why narrow-hidden"),
        _plain("started_at", "Started (UTC)"),
        _plain("seconds", "Seconds", ",.0f"),
        _plain("starts", "Starts", "d", kind="number narrow-hidden"),
        _plain("message", "How it ended", kind="why narrow-hidden"),
    ]
    made = [{**row, "started_at": moment(row["started_at"]), "message": _cut(row["message"])} for row in rows]
    return [
        _note(f"{shown} One that is running in the lake, but whose process is gone, is interrupted."),
        _table(columns, made),
    ]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= 200 else f"{text[:200]}..."


def _sizes(rows: list[Row]) -> list[Markup]:
    if not rows:
        return [_note("No files yet.")]
    whole = "(no archive)"
    named = [{**row, "archive": row["archive"] or whole} for row in rows]
    archives = sorted({row["archive"] for row in named}, key=lambda one: (one == whole, one))
    sums: dict[tuple[str, str], list[int]] = {}
    for row in named:
        for key in {(row["table_name"], row["archive"]), (row["table_name"], ""), ("", row["archive"]), ("", "")}:
            one = sums.setdefault(key, [0, 0, 0])
            for place, what in enumerate(("bytes", "rows", "files")):
                one[place] += row[what]

    def cell(table: str, archive: str) -> Cell:
        n, count, files = sums.get((table, archive), (0, 0, 0))
        about = f"{table or 'all tables'}, {archive or 'in all'}: {_many(n, 'byte')}, {_many(count, 'row')}, "
        about += _many(files, "file")
        kind = f"l{max(0, min(7, len(str(n)) - 3))}" if files else "empty"
        return Cell(
            size(n) if files else "",
            kind,
            about,
            n,
            f"{short(count)} {'row' if count == 1 else 'rows'}" if files else "",
        )

    tables = sorted({row["table_name"] for row in named}, key=lambda one: (-sums[one, ""][0], one))
    lines = [(table or "all", [cell(table, one) for one in ("", *archives)]) for table in (*tables, "")]
    return [
        _note(
            "Parquet files of each table, with their rows. The ledger and the lists of files, archives and runs are in "
            "the catalogue."
        ),
        legend("size"),
        grid("Table", ["in all", *archives], lines, kind="sizes"),
    ]


_DRAWN: dict[str, Drawing] = {
    "answers": _answers,
    "sky": _sky,
    "coverage": _coverage,
    "samples": _samples,
    "years": _years,
    "ages": _ages,
    "missing": _missing,
    "changes": _changes,
    "runs": _runs,
    "sizes": _sizes,
}


def _queries(answers: Mapping[str, Answer]) -> Markup:
    blocks = "\n".join(
        f'<div class="query" id="query-{name}"><h3>{_TITLES[name]} <a href="#{name}">back</a>'
        f'<button class="tool" type="button" data-copy="sql-{name}" hidden>copy</button></h3>'
        f'<pre id="sql-{name}" tabindex="0">{html.escape(answers[name].command)}</pre></div>'
        for name in _TITLES
    )
    return Markup(
        '<section id="queries"><h2>Queries</h2><p class="note">Each gives the numbers above, of one state of the lake; '
        f"add --lake if LIGHTLAKE_URL does not name it.</p>\n{blocks}</section>"
    )
