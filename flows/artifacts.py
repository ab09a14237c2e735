"""Make the artifacts of a run: what is missing and why, and a plot."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

import duckdb
import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from flows.markdown import code, row, text
from lake.commit.ledger import failed_targets
from lake.errors import LightlakeError
from lake.query import Lake
from lake.redact import safe_line
from lake.text import counted
from tasks.pull.report import Loss
from tasks.services.request_counters import Log
from tasks.sources.base import Origin

# A loss names so many targets, and quotes so many letters of the reason, at most; the ledger has all.
MOST_TARGETS, MOST_LETTERS = 3, 400


def key_of(kind: str, archive: str) -> str:
    """Return the key of an artifact."""
    return f"{kind}-{archive.replace('_', '-')}"


@contextmanager
def log_errors(log: Log, what: str) -> Iterator[None]:
    """Log an error while an artifact is made, so that it does not end a run that went well."""
    try:
        yield
    except (LightlakeError, PrefectException, duckdb.Error, httpx.HTTPError, OSError, ImportError, ValueError) as error:
        log.error("%s could not be made: %s: %s", what, type(error).__name__, safe_line(error))


def losses_table(losses: Sequence[Loss], count: int, targets: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a table of losses in Markdown, with the names of some targets of each granule."""
    lines = ["| granule | status | targets | tried again | why |", "|---|---|---|---:|---|"]
    for loss in losses:
        names = list(targets.get(loss.granule, ()))
        more = loss.n_targets - len(names)
        shown_targets = ", ".join(names) + (
            f" and {more} more" if names and more > 0 else "" if names else str(loss.n_targets)
        )
        granule = code(loss.granule) if loss.name is None else f"{text(loss.name)} ({code(loss.granule)})"
        why = loss.reason if len(loss.reason) <= MOST_LETTERS else f"{loss.reason[:MOST_LETTERS]}..."
        lines.append(row(granule, loss.status, text(shown_targets), loss.retries, text(why)))
    if count > len(losses):
        lines += ["", f"and {counted(count - len(losses), 'more granule')}."]
    return lines


def where_to_look(archive: str, advice: str) -> list[str]:
    """Return advice, and the commands that show all losses, in Markdown."""
    query = (
        "SELECT granule, status, n_targets, retries, reason, error FROM ledger "
        f"WHERE archive = '{archive}' AND status IN ('failed', 'rejected') ORDER BY started_at DESC"
    )
    return [
        "",
        f"{advice} Every attempt, with its error in full:",
        "",
        "```",
        f"lightlake status {archive}",
        f'lightlake sql "{query}"',
        "```",
    ]


def names_of(lake: Lake, archive: str, release: str, losses: Sequence[Loss]) -> dict[str, list[str]]:
    """Return the names of some targets of each lost granule."""
    if not losses:
        return {}
    with closing(lake.catalog.cursor()) as cursor:
        return failed_targets(cursor, archive, release, [loss.granule for loss in losses], MOST_TARGETS)


def publish_light_curves(lake: Lake, origin: Origin, granule: str) -> None:
    """Publish a picture of a granule's new light curves, if there are any."""
    from tasks.analysis.figures.pictures import light_curve_png, longest_light_curves

    rows = longest_light_curves(lake, origin.name, origin.release, granule)
    if not rows.num_rows:
        return
    caption = f"The light curves with most measurements that granule {code(granule)} brought."
    title = f"New light curves from {origin.title}"
    shown = picture(text(title), light_curve_png(rows, title))
    lines = [f"# What came from {origin.name} {text(origin.release)}", "", shown, "", caption, "", credits_of(origin)]
    create_markdown_artifact("\n".join(lines), key=key_of("plot", origin.name), description=text(title))


def answers_picture(answers: Sequence[tuple[str, str, int]]) -> str:
    """Return a picture, in Markdown, of the number of targets by archive and answer."""
    from tasks.analysis.figures.pictures import answers_png

    title = "Answers of this refresh: targets by archive"
    return picture(title, answers_png(answers, title))


def run_picture(lake: Lake, run_id: str) -> str:
    """Return a picture, in Markdown, of what a run used, by archive and over time."""
    from tasks.analysis.run_pages import run_png

    return picture("What the run used: processor, memory, bytes and requests", run_png(lake, run_id))


def credits_of(origin: Origin) -> str:
    """Return an archive's terms in Markdown, with links where there are any."""
    title = f"[{origin.title}]({origin.public_url})" if origin.public_url.startswith("http") else origin.title
    paper = f" ([{origin.bibcode}](https://ui.adsabs.harvard.edu/abs/{origin.bibcode}))" if origin.bibcode else ""
    return f"{title}. Terms of use: {origin.licence.rstrip('.')}. To be acknowledged{paper}: {origin.acknowledgement}"


def picture(title: str, png: bytes) -> str:
    """Return a picture in Markdown."""
    # Prefect's UI shows a picture only if the text itself contains it.
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"
