"""Extract VIRAC's tiles into the lake, as a flow."""

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
from tasks.sources.virac.options import ViracOptions


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    return title(f"VIRAC: {given.get('tiles')}{' (failed ones)' if given.get('retry_failed') else ''}", given)


@flow(name="virac", flow_run_name=run_name, validate_parameters=True)
@spread(ViracOptions)
def extract_virac(*, lake: LakeField = None, options: ViracOptions, runner: RunnerField = None) -> State[PullReport]:
    """Extract every tile of a folder that is not in the lake yet, and commit each by itself.

    The run ends Failed if a tile was rejected or failed, or if a folder could not be read; its message says which and
    why. All other tiles are in the lake. A run that was killed has lost only the tiles in hand, and the next goes on.
    """
    return pulled_alone(Request("virac", options, select=options.select), lake, load_settings(runner=runner))
