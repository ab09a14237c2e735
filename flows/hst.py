"""Bring HST's photons into the lake, as a flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.forms import LakeField, RunnerField
from flows.hst_artifacts import publish_composites
from flows.pull import pulled_alone
from flows.titles import title
from lake.settings import load_settings
from tasks.options import FormField, spread
from tasks.pull.report import PullReport
from tasks.sources.hst_timetag.options import HstOptions
from tasks.sources.protocol import Request
from tasks.worker import lake_at

PagesField = Annotated[str | None, FormField("Folder for the pages of all composites", empty="none are written")]


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    of = next((str(given[name]) for name in ("target", "sample", "hst_name", "files") if given.get(name)), None)
    what = "what is new" if given.get("new") else of or "all targets"
    return title(f"photons of HST: {what}{' (failed ones)' if given.get('retry_failed') else ''}", given)


@flow(name="hst", flow_run_name=run_name, validate_parameters=True)
@spread(HstOptions, positional=["target", "sample"])
def pull_hst(
    *, lake: LakeField = None, options: HstOptions, runner: RunnerField = None, pages: PagesField = None
) -> State[PullReport]:
    """Bring every COS and STIS exposure of targets into the lake, each a granule of its own, and composites of them.

    The run ends Failed if an exposure was rejected or failed; its message says which and why. All others are in the
    lake. A run that was killed has lost only the exposures in hand, and the next goes on. While another run does the
    same for the same lake, this one waits. If light curves came, it leaves the most variable composites as an artifact;
    and if a folder is given, the pages of all with a link to them.
    """
    request = Request("hst_timetag", options, options.sample, options.select)
    settings = load_settings(runner=runner)
    state = pulled_alone(request, lake, settings)
    if isinstance(state.data, PullReport) and state.data.rows:
        publish_composites(lake_at(str(lake or settings.url)), None if pages is None else Path(pages), get_run_logger())
    return state
