"""Pull RXTE's observations of targets, as a flow."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.forms import LakeField, RunnerField
from flows.pull import pulled_alone
from flows.titles import title
from lake.settings import load_settings
from tasks.options import spread
from tasks.pull.report import PullReport
from tasks.sources.protocol import Request
from tasks.sources.rxte.options import RxteOptions


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    targets = given.get("target") or given.get("sample") or "all targets"
    return title(f"RXTE: {targets}{' (failed ones)' if given.get('retry_failed') else ''}", given)


@flow(name="rxte", flow_run_name=run_name, validate_parameters=True)
@spread(RxteOptions, positional=["target", "sample"])
def pull_rxte(*, lake: LakeField = None, options: RxteOptions, runner: RunnerField = None) -> State[PullReport]:
    """Bring every RXTE observation of targets into the lake, each a granule of its own.

    The run ends Failed if an observation was rejected or failed; its message says which and why. All others are in the
    lake. A run that was killed has lost only the observations in hand, and the next goes on. While another run does the
    same for the same lake, this one waits.
    """
    request = Request("rxte", options, options.sample, options.select)
    return pulled_alone(request, lake, load_settings(runner=runner))
