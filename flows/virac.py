"""Extract VIRAC's tiles into the lake, as a flow."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.forms import FormField
from flows.survey import surveyed
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.pull import lake_at
from tasks.pull.report import SurveyReport
from tasks.sources.virac.pieces import PATTERN
from tasks.sources.virac.source import Asked, pull
from tasks.sources.virac.tile import BANDS
from tasks.sources.virac.tiles import MIN_KS, Selection


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    return safe_line(f"virac {given.get('tiles')}{' (failed ones)' if given.get('retry_failed') else ''}")


@flow(name="virac", flow_run_name=run_name, validate_parameters=True)
def extract_virac(
    tiles: Annotated[
        str, FormField("Folder of the tiles, or s3://BUCKET/PREFIX; or eso:n1024_9000000,... for the public release")
    ],
    lake: Annotated[str | None, FormField("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    pattern: Annotated[str, FormField("Names of the tiles' files")] = PATTERN,
    min_ks: Annotated[int, Field(ge=0), FormField("Keep sources with more Ks detections than this")] = MIN_KS,
    bands: Annotated[
        list[Literal["H", "J", "Ks", "Y", "Z"]] | None, FormField("Bands whose rows are kept", empty="all bands")
    ] = None,
    retry_failed: Annotated[bool, FormField("Exactly those that were rejected or failed before")] = False,
    shard: Annotated[
        str | None, Field(pattern=r"^\d+/\d+$"), FormField("One of several jobs, such as 0/96", empty="all tiles")
    ] = None,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None, FormField("What runs the tasks", empty="LIGHTLAKE_RUNNER")
    ] = None,
) -> State[SurveyReport]:
    """Extract every tile of a folder that is not in the lake yet, and commit each by itself.

    The run ends Failed if a tile was rejected or failed, or if a folder could not be read; its message says which and
    why. All the rest is in the lake all the same. A run that was killed has lost nothing but the tiles in hand, and
    the next one goes on.
    """
    settings = load_settings(runner=runner)
    asked = Asked(tiles, pattern, Selection(min_ks, tuple(sorted(bands or BANDS))), retry_failed, shard)
    return surveyed(lake_at(str(lake or settings.url)), settings, lambda run: pull(run, asked))
