"""A figure of each target of a sample, and a page with thumbnails that finds them."""

from __future__ import annotations

import hashlib
import html
import json
import multiprocessing
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lake.output import whole_file
from lake.query import Lake
from lake.store.migrations import SOFTWARE
from lake.text import counted
from tasks.analysis.figures.page import Packed, write_page
from tasks.analysis.figures.points import FLUX, Look, points
from tasks.analysis.figures.saving import encoded, save
from tasks.analysis.figures.target import band_styles, measurements, target_figure
from tasks.analysis.html_pages import Column, Page, link, thumbnail

Format = Literal["html", "png", "svg", "pdf", "json"]

INDEX, NOTED = "index.html", "figures.json"
# A task draws so many targets. To start a process takes as long as to draw some ten.
_A_TASK = 4
_A_PROCESS = 16
_THUMBNAIL = (240, 56)
_MOST_DOTS = 250

_NOT_A_FILE = re.compile(r"[^A-Za-z0-9.+-]+")

# What a target's figure depends on: the sources that it is matched with, and the granules that brought their rows.
_TARGETS = """
    SELECT t.target_id, t.name, t.ra, t.dec, t.redshift, coalesce(sum(s.n), 0)::BIGINT AS measurements,
        count(DISTINCT m.archive) AS archives,
        -- A mean that is not above its own uncertainty says nothing of what varies around it.
        max(s.flux_std / s.flux_mean) FILTER (
            WHERE s.unit = 'mJy' AND s.n_good >= 10 AND s.flux_mean > 5 * s.flux_std / sqrt(s.n_good)
        ) AS scatter,
        coalesce(md5(string_agg(concat_ws('|', s.archive, s.source_id, s.band, s.granule, s.n), ' '
            ORDER BY s.archive, s.source_id, s.band)), '') AS content
    FROM targets t LEFT JOIN matches m USING (target_id)
    LEFT JOIN archives a ON a.archive = m.archive
    LEFT JOIN statistics s ON s.archive = m.archive AND s.release = m.release AND s.hpx29 = m.hpx29
        AND s.source_id = m.source_id AND s.release = coalesce(a.release, m.release)
    WHERE $sample IS NULL OR t.target_id IN (SELECT target_id FROM labels WHERE sample = $sample)
    GROUP BY ALL ORDER BY t.name NULLS LAST, t.target_id
"""


@dataclass(frozen=True)
class Drawn:
    """Result of drawing many figures: how many were made, and how many were up to date."""

    index: Path
    made: int
    kept: int


def draw_sample(
    lake: Lake,
    folder: Path,
    look: Look,
    *,
    sample: str | None = None,
    archive: str | None = None,
    kind: Format = "html",
    workers: int = 2,
    advance: Callable[[int], None] = lambda n: None,
    begin: Callable[[int], None] = lambda n: None,
) -> Drawn:
    """Draw each target of a sample into a folder, with an index page; figures that are up to date stay.

    Parameters
    ----------
    lake
        The lake, open for reading.
    folder
        Where to write: one file for each target, thumbnails, `index.html`.
    look
        How the figures are drawn.
    sample, archive
        Only targets of this sample, and this archive; None: all.
    kind
        Form of the files.
    workers
        Processes, at most; few figures are drawn in this one.
    begin, advance
        Called with the number of figures to be drawn, then of those that were.
    """
    targets = lake.sql(_TARGETS, {"sample": sample}).to_pylist()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thumbnails").mkdir(exist_ok=True)
    how = json.dumps([SOFTWARE, asdict(look), archive, kind], default=str)
    files = _files(targets, kind)
    noted = _noted(folder)
    keys = {
        one["target_id"]: hashlib.blake2b(
            f"{how}\n{one['name']}\n{one['content']}".encode(), digest_size=12
        ).hexdigest()
        for one in targets
    }
    due = [
        one["target_id"]
        for one in targets
        if noted.get(files[one["target_id"]]) != keys[one["target_id"]]
        or not (folder / files[one["target_id"]]).exists()
    ]
    begin(len(due))
    pieces = [due[start : start + _A_TASK] for start in range(0, len(due), _A_TASK)]
    drawing = partial(_draw, str(lake.storage.root), folder=str(folder), look=look, archive=archive, kind=kind)
    tasks = {tuple(piece): {i: files[i] for i in piece} for piece in pieces}
    for piece in _done(drawing, tasks, min(workers, len(due) // _A_PROCESS)):
        noted |= {files[i]: keys[i] for i in piece}
        _note(folder, noted)
        advance(len(piece))
    _note(folder, {name: key for name, key in noted.items() if name in set(files.values())})
    return Drawn(_write_index(folder, targets, files, sample), len(due), len(targets) - len(due))


def _done(
    drawing: Callable[[Mapping[int, str]], None], tasks: Mapping[tuple[int, ...], Mapping[int, str]], workers: int
) -> Iterator[tuple[int, ...]]:
    """Do tasks, and yield each that is done: here, unless several processes would do them at the same time."""
    if min(workers, len(tasks)) < 2:
        for piece, files in tasks.items():
            drawing(files)
            yield piece
        return
    with ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn")) as pool:
        jobs = {pool.submit(drawing, files): piece for piece, files in tasks.items()}
        for job in as_completed(jobs):
            job.result()
            yield jobs[job]


def _draw(url: str, files: Mapping[int, str], folder: str, look: Look, archive: str | None, kind: Format) -> None:
    """Draw some targets."""
    with Lake(url) as lake:
        colours = band_styles(lake)
        for target_id, name in files.items():
            path = Path(folder) / name
            spec = target_figure(lake, target_id, look, archive)
            if kind == "html":
                one = Packed.of(spec)
                write_page([one], one.title, path)
            else:
                save(encoded(spec, kind), path)
            rows = measurements(lake, target_id, Look(), archive)
            save(_sketch(rows, colours).encode(), Path(folder) / "thumbnails" / f"{path.stem}.svg")


def _sketch(rows: pa.Table, colours: Mapping[tuple[str, str], Any]) -> str:
    """Draw a light curve as a small picture: good fluxes in mJy, each band between its own ends."""
    width, height = _THUMBNAIL
    frame = points(rows, Look()).frame
    frame = frame[(frame.kind == "point") & (frame.panel == FLUX)]
    dots = []
    if len(frame):
        first, last = frame.x.min(), frame.x.max()
        bands = frame[["archive", "band"]].drop_duplicates().itertuples(index=False)
        for archive, band in (curves := list(bands)):
            one = frame[(frame.archive == archive) & (frame.band == band)]
            one = one.iloc[:: max(1, -(-len(one) * len(curves) // _MOST_DOTS))]
            low, high = np.nanpercentile(one.y, [1, 99])
            x = 3 + (width - 6) * (one.x - first) / max(last - first, 1e-9)
            y = height - 4 - (height - 8) * ((one.y - low) / max(high - low, 1e-30)).clip(-0.1, 1.1)
            path = "".join(f"M{a:.1f} {b:.1f}h.01" for a, b in zip(x, y, strict=True))
            dots.append(f'<path d="{path}" stroke="{html.escape(colours[archive, band].colour)}"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" fill="none" stroke-width="2.4" '
        f'stroke-linecap="round">{"".join(dots)}</svg>'
    )


def _files(targets: list[dict[str, Any]], kind: Format) -> dict[int, str]:
    """Return a file's name for each target: names that look alike get the target's id."""
    found, taken = {}, set[str]()
    for one in targets:
        plain = _NOT_A_FILE.sub("_", one["name"] or "").strip("._")[:80]
        name = plain if plain and plain.lower() not in taken | {"index"} else f"{plain or 'target'}_{one['target_id']}"
        taken.add(name.lower())
        found[one["target_id"]] = f"{name}.{kind}"
    return found


def _write_index(folder: Path, targets: list[dict[str, Any]], files: Mapping[int, str], sample: str | None) -> Path:
    page = Page(f"Light curves of {sample or 'all targets'}", links={})
    page.text(
        f"{counted(len(targets), 'target')}. A click on a heading sorts. Scatter is that of the band in mJy that "
        "varies most, over its mean."
    )
    rows = [
        {
            **one,
            "figure": link(files[one["target_id"]], one["name"] or str(one["target_id"])),
            "figure_sorted": one["name"] or str(one["target_id"]),
            "sketch": thumbnail(
                files[one["target_id"]],
                f"thumbnails/{Path(files[one['target_id']]).stem}.svg",
                f"light curve of {one['name']}",
            ),
            "scatter": None if one["scatter"] is None else 100 * one["scatter"],
        }
        for one in targets
    ]
    columns = [
        Column("figure", "Target", kind="name"),
        Column("ra", "RA (deg)", ".5f"),
        Column("dec", "Dec (deg)", "+.5f"),
        Column("redshift", "Redshift", ".4f"),
        Column("scatter", "Scatter (%)", ".1f"),
        Column("measurements", "Points", ",d"),
        Column("archives", "Archives", "d"),
        Column("sketch", "Light curve", kind="plot", is_sortable=False),
    ]
    page.table(columns, rows)
    return page.write(folder, INDEX)


def _noted(folder: Path) -> dict[str, str]:
    """Return what earlier figures of a folder were made of, by file."""
    try:
        found = json.loads((folder / NOTED).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {str(name): str(key) for name, key in found.items()} if isinstance(found, dict) else {}


def _note(folder: Path, noted: Mapping[str, str]) -> None:
    with whole_file(folder / NOTED) as file:
        file.write(json.dumps(noted, indent=1).encode())


def figures(lake: Lake, look: Look, sample: str | None = None) -> Iterator[Packed]:
    """Draw all targets of a sample, for one page."""
    for one in lake.sql(_TARGETS, {"sample": sample}).to_pylist():
        yield Packed.of(target_figure(lake, one["target_id"], look))
