"""Draw tables of numbers as HTML: maps of coloured cells, stacked bars, and legends that say what a colour means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.analysis.html_pages import Markup
from tasks.analysis.pages import escaped

# A colour for each power of ten: none, 1 to 9, 10 to 99, ... and the rest.
LEVELS = 8
_POWERS = ("0", "1", "10", "100", "1k", "10k", "100k", "1M")
_SHARES = ("0 %", "1 %", "17 %", "33 %", "50 %", "67 %", "83 %", "100 %")
_SIZES = ("less", "1 kB", "10 kB", "100 kB", "1 MB", "10 MB", "100 MB", "1 GB")

# What an answer without measurements is drawn as: a class, and a sign for those who see no colours.
SIGNS = {"empty": "–", "failed": "✕", "rejected": "!", "never asked": ""}
MEANINGS = {
    "empty": "asked, nothing there",
    "failed": "no answer",
    "rejected": "the answer is bad",
    "never asked": "never asked",
    "lost": "some failed or were rejected",
}

STYLE = """
main, nav { max-width: 1560px; }
:root { --l0: #eef2f6; --l1: #deebf7; --l2: #c6dbef; --l3: #9ecae1; --l4: #6baed6; --l5: #4292c6; --l6: #2171b5;
  --l7: #08519c; --dark: #0b141b; --pale: #fff; --low: var(--dark); --middle: var(--dark); --high: var(--pale);
  --failed: #b42318; --on-failed: #fff; --rejected: #fdb022; --on-rejected: #0b141b; }
@media screen and (prefers-color-scheme: dark) {
  :root { --l0: #2a333d; --l1: #17324d; --l2: #1b4468; --l3: #1f5a8a; --l4: #2671ad; --l5: #4a97ca; --l6: #7fb8de;
    --l7: #c6dbef; --low: var(--pale); --middle: var(--dark); --high: var(--dark); --failed: #f97066;
    --on-failed: #0b141b; }
}
.l0 { background: var(--l0); fill: var(--l0); color: var(--low); }
.l1 { background: var(--l1); fill: var(--l1); color: var(--low); }
.l2 { background: var(--l2); fill: var(--l2); color: var(--low); }
.l3 { background: var(--l3); fill: var(--l3); color: var(--low); }
.l4 { background: var(--l4); fill: var(--l4); color: var(--low); }
.l5 { background: var(--l5); fill: var(--l5); color: var(--middle); }
.l6 { background: var(--l6); fill: var(--l6); color: var(--high); }
.l7 { background: var(--l7); fill: var(--l7); color: var(--high); }
.found { background: var(--l6); }
.empty { background: none; color: var(--grey); }
.lost { box-shadow: inset 0 -3px var(--failed) !important; }
.failed { background: var(--failed); color: var(--on-failed); }
.rejected { background: var(--rejected); color: var(--on-rejected); }
.never-asked { background: repeating-linear-gradient(135deg, var(--line) 0 2px, var(--card) 2px 6px); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 600px), 1fr)); gap: 0 28px; }
.pair > section { min-width: 0; }
section h2 { display: flex; gap: 12px; align-items: baseline; margin: 26px 0 6px; }
h2 a, h3 a { font-size: 13px; font-weight: 400; }
.note { font-size: 13px; margin: 0 0 8px; max-width: 90ch; }
.card { margin: 8px 0 12px; padding: 12px; }
.facts { grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); }
.facts a { color: inherit; }
.facts a:hover, .facts a:focus-visible { color: var(--link); }
td, th, .legend span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
table.grid { border-collapse: separate; border-spacing: 1px; width: 100%; table-layout: fixed; font-size: 11.5px;
  max-width: calc(132px + var(--columns) * 120px); }
.grid th, .grid td { border: 0; padding: 1px 4px; height: 21px; box-shadow: none; position: static; }
.grid thead th { vertical-align: bottom; font-weight: 400; text-align: left; padding: 4px 2px; background: none; }
.grid thead th span { writing-mode: vertical-rl; transform: rotate(180deg); line-height: 1.1; max-height: 12em;
  overflow: hidden; white-space: nowrap; }
.grid thead th:first-child { width: 132px; }
.grid thead th { text-align: center; }
.grid thead th:first-child { text-align: left; color: var(--grey); }
table.sizes { min-width: calc(132px + var(--columns) * 54px); }
.grid tbody th { font-weight: 400; text-align: left; white-space: nowrap; max-width: 190px; overflow: hidden;
  text-overflow: ellipsis; background: none; }
.grid td { text-align: center; min-width: 20px; white-space: nowrap; font-variant-numeric: tabular-nums;
  border-radius: 2px; }
.grid td small { display: block; font-size: 9.5px; line-height: 1.1; }
.grid .plain { background: none; }
.grid tbody tr:hover { background: none; }
.grid tbody tr:hover th { color: var(--link); }
.legend { display: flex; flex-wrap: wrap; gap: 3px 10px; font-size: 12px; color: var(--grey); margin: 0 0 8px; }
.legend span { display: inline-flex; align-items: center; gap: 5px; }
.legend i { display: inline-flex; width: 22px; height: 14px; border-radius: 2px; font: 10px/14px sans-serif;
  justify-content: center; border: 1px solid var(--line); }
.legend .scale { gap: 0; }
.legend .scale i { width: auto; min-width: 26px; padding: 0 4px; border: 0; border-radius: 0; }
.bar { display: flex; height: 14px; min-width: 90px; border-radius: 3px; overflow: hidden;
  border: 1px solid var(--line); }
.bar i { display: block; }
td.why { max-width: 60ch; overflow-wrap: anywhere; }
table.list { font-size: 13px; }
.list thead th { padding: 4px 6px; }
.list tr:last-child td { border-bottom: 0; }
.list .number { width: 1%; }
.sky { display: block; width: 100%; height: auto; }
.sky .globe { fill: none; stroke: var(--grey); }
.sky .net { fill: none; stroke: var(--line); }
.sky .plane { fill: none; stroke: var(--grey); stroke-dasharray: 5 4; }
.sky circle { stroke: var(--ink); stroke-width: 0.7; fill-opacity: 0.9; }
.sky.dense circle { stroke: var(--card); stroke-width: 0.4; }
.sky text { fill: var(--grey); font-size: 12px; }
pre { margin: 0; padding: 12px; overflow-x: auto; font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace;
  user-select: all; }
.query { border: 1px solid var(--line); border-radius: 8px; background: var(--card); margin: 0 0 14px; }
.query:target { border-color: var(--link); }
.query h3 { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: baseline; font-size: 14px; margin: 0;
  padding: 8px 12px; border-bottom: 1px solid var(--line); }
.query button { margin-left: auto; font: inherit; font-size: 13px; font-weight: 400; color: var(--link);
  cursor: pointer; background: none; border: 1px solid var(--line); border-radius: 6px; padding: 1px 10px; }
@media (max-width: 640px) {
  .narrow-hidden { display: none; }
  .card { padding: 8px; }
  .grid td, .grid th { padding: 1px; }
  .grid thead th:first-child { width: 92px; }
  .small td[class^=l] span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .small td { min-width: 0; }
  .ages thead th:last-child { display: none; }
  table.list { font-size: 12px; }
  .tight thead th.number { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
  .list th, .list td, .list thead th { padding: 4px 3px; }
  .sky text { font-size: 21px; }
  .sky.even circle { r: 8px; }
  .legend .scale i { min-width: 18px; padding: 0 3px; font-size: 9px; }
}
@media print {
  .pair { display: block; }
  section { break-inside: avoid-page; }
  #queries, .query { break-inside: auto; }
  .card { overflow: visible; }
  pre { white-space: pre-wrap; }
}
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a map: its number, as it is drawn and as it is."""

    shown: str
    kind: str
    about: str
    value: Any
    below: str = ""

    def html(self) -> str:
        """Return it as HTML."""
        small = f"<small>{escaped(self.below)}</small>" if self.below else ""
        return (
            f'<td class="{self.kind}" data-v="{escaped(str(self.value))}" title="{escaped(self.about)}">'
            f"<span>{escaped(self.shown)}{small}</span></td>"
        )


def grid(
    corner: str, columns: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]], kind: str = "small"
) -> Markup:
    """Draw a map: a row for each name, and a cell for each column in it; kind small hides numbers on small screens."""
    heads = "".join(f'<th scope="col"><span>{escaped(one)}</span></th>' for one in columns)
    lines = "\n".join(
        f'<tr><th scope="row" title="{escaped(name)}">{escaped(name)}</th>{"".join(cell.html() for cell in cells)}</tr>'
        for name, cells in rows
    )
    table = f'<table class="grid {kind}" style="--columns:{len(columns)}">'
    return Markup(
        f'<div class="card">{table}<thead><tr><th scope="col">{escaped(corner)}</th>{heads}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def bars(rows: Iterable[Mapping[str, Any]], kinds: Sequence[str], total: str) -> Iterable[Markup]:
    """Draw a bar for each row, of its numbers by kind, as shares of the total."""
    for row in rows:
        parts = [(kind, row[kind.replace(" ", "_")]) for kind in kinds]
        inner = "".join(
            f'<i class="{kind.replace(" ", "-")}" style="width:{100 * n / max(row[total], 1):.3f}%"></i>'
            for kind, n in parts
            if n > 0
        )
        about = ", ".join(f"{n:,} {kind}" for kind, n in parts)
        yield Markup(
            f'<div class="bar" role="img" aria-label="{escaped(about)}" title="{escaped(about)}">{inner}</div>'
        )


def legend(scale: str | None, kinds: Iterable[str] = (), unit: str = "") -> Markup:
    """Say what colours mean: of a scale (points, share, size), and of answers by kind."""
    parts = []
    if scale is not None:
        names = {"points": _POWERS, "share": _SHARES, "size": _SIZES}[scale]
        steps = "".join(f'<i class="l{level}">{name}</i>' for level, name in enumerate(names))
        parts.append(f'<span class="scale">{steps}</span><span>{escaped(unit)}</span>')
    for kind in kinds:
        sign = f'<i class="{kind.replace(" ", "-")}">{SIGNS.get(kind, "")}</i>'
        meaning = MEANINGS.get(kind, kind)
        parts.append(f"<span>{sign}{escaped(kind if kind in (meaning, 'found') else f'{kind}: {meaning}')}</span>")
    return Markup(f'<div class="legend">{"".join(parts)}</div>')


def level(n: float) -> str:
    """Return the colour of a number, by its power of ten.

    Examples
    --------
    >>> level(0), level(1), level(9), level(10), level(123_456), level(10**9)
    ('l0', 'l1', 'l1', 'l2', 'l6', 'l7')
    """
    return f"l{min(LEVELS - 1, len(str(int(n))) if n >= 1 else 0)}"


def share_level(part: float, whole: float) -> str:
    """Return the colour of a share: none and all have one of their own.

    Examples
    --------
    >>> share_level(0, 10), share_level(1, 1000), share_level(5, 10), share_level(999, 1000), share_level(7, 7)
    ('l0', 'l1', 'l4', 'l6', 'l7')
    """
    if part <= 0 or whole <= 0:
        return "l0"
    return "l7" if part >= whole else f"l{1 + int(6 * part / whole)}"


def short(n: float) -> str:
    """Shorten a number to at most four letters.

    Examples
    --------
    >>> [short(n) for n in (0, 999, 1475, 20_693, 999_999, 1_234_567, 57_000_000_000)]
    ['0', '999', '1.5k', '21k', '1.0M', '1.2M', '57G']
    """
    if n < 1000:
        return str(int(n))
    for unit in ("k", "M", "G", "T"):
        n /= 1000
        if n < 999.5:
            return f"{n:.1f}{unit}" if n < 9.95 else f"{n:.0f}{unit}"
    return f"{n:.0f}T"


def size(n: float) -> str:
    """Return a number of bytes with a unit.

    Examples
    --------
    >>> size(0), size(999), size(5870), size(2_414_676)
    ('0 B', '999 B', '5.9 kB', '2.4 MB')
    """
    if n < 1000:
        return f"{int(n)} B"
    text = short(n)
    return f"{text[:-1]} {text[-1]}B"


def moment(time: datetime | None) -> str:
    """Return a time to the minute, UTC; a dash if there is none."""
    return "–" if time is None else f"{time:%Y-%m-%d %H:%M}"
