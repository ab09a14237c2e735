"""Leave a report of the lake in the UI after a refresh: what it holds, what is missing, and where its targets are."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact

from flows.artifacts import log_errors, picture
from flows.markdown import row, text
from lake.query import Lake
from tasks.services.request_counters import Log

_HEADS = ("archive", "found", "empty", "failed", "rejected", "never asked", "points")


def publish_report(lake: Lake, log: Log) -> None:
    """Leave the report as a Markdown artifact; what cannot be made is logged."""
    with log_errors(log, "the report of the lake"):
        page, summary = report(lake)
        create_markdown_artifact(page, key="report", description=text(summary))


def report(lake: Lake) -> tuple[str, str]:
    """Return the report in Markdown, with a picture of the sky, and its summary in one line."""
    from tasks.analysis.report.lake_page import summary_of, title_of
    from tasks.analysis.report.queries import ask
    from tasks.analysis.report.sky import sky_png

    answers = ask(lake, names=("totals", "answers", "sky"))
    (totals,) = answers["totals"].table.to_pylist()
    summary = summary_of(totals)
    lines = [f"# {text(title_of(lake))}", "", f"{text(summary)}.", ""]
    found = answers["answers"].table.to_pylist()
    if found:
        lines += [row(*_HEADS), f"|---|{'---:|' * (len(_HEADS) - 1)}"]
        for one in found:
            numbers = (one[name.replace(" ", "_")] for name in _HEADS[1:-1])
            lines.append(row(text(one["archive"]), *(f"{n:,}" for n in numbers), f"{one['measurements']:,}"))
        lines.append("")
    dots = answers["sky"].table.to_pylist()
    if dots:
        lines += ["## On the sky", "", picture("Targets on the sky, by number of points", sky_png(dots)), ""]
    lines += [
        "Years, ages, samples, runs and sizes, with the query of each number, are on the whole page:",
        "",
        "```",
        "lightlake report --to report.html",
        "```",
    ]
    return "\n".join(lines), summary
