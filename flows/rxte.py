"""Pull RXTE's observations of targets, as a flow."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.forms import Shown
from flows.survey import surveyed
from lake.redact import safe_line
from lake.settings import load_settings
from tasks.pull import lake_at
from tasks.pull.report import SurveyReport
from tasks.sources.rxte.cut import GTI
from tasks.sources.rxte.find import RADIUS_DEG
from tasks.sources.rxte.source import asked_of, pull


def run_name() -> str:
    """Return the name of a run, for the UI."""
    given = flow_run.parameters
    who = given.get("target") or given.get("sample") or "all targets"
    return safe_line(f"rxte {who}{' (failed ones)' if given.get('retry_failed') else ''}")


@flow(name="rxte", flow_run_name=run_name, validate_parameters=True)
def pull_rxte(
    target: Annotated[
        str | None, Shown("A target of the lake by name, or a new one as 'RA DEC' in degrees", empty="all targets")
    ] = None,
    sample: Annotated[str | None, Shown("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, Shown("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    radius_deg: Annotated[float, Field(gt=0, le=5), Shown("Observations within this of a target")] = RADIUS_DEG,
    method: Annotated[
        Literal["products", "heasoft", "standard2"],
        Shown(
            "products: the archive's standard light curves. heasoft: chosen channels by pcaextlc2. "
            "standard2: chosen channels without HEASoft, background in them, dead time not corrected"
        ),
    ] = "products",
    bands: Annotated[
        list[str] | None,
        Shown("Of the standard products, such as pca_a, beside those that the lake has", empty="all that there are"),
    ] = None,
    chmin: Annotated[int | None, Field(ge=0, le=255), Shown("First absolute channel")] = None,
    chmax: Annotated[int | None, Field(ge=0, le=255), Shown("Last absolute channel")] = None,
    emin_kev: Annotated[float | None, Field(ge=0), Shown("Instead of channels: lowest energy, keV")] = None,
    emax_kev: Annotated[float | None, Field(gt=0), Shown("Highest energy, keV")] = None,
    pcus: Annotated[list[int] | None, Shown("Detectors 0 to 4", empty="all")] = None,
    layers: Annotated[list[int] | None, Shown("Anode layers 1 to 3", empty="all")] = None,
    bin_s: Annotated[float | None, Shown("Length of a bin, seconds: a multiple of 16", empty="16")] = None,
    gti: Annotated[
        str | None, Shown(f"Good times, as maketime takes them. The usual: {GTI}", empty="the usual")
    ] = None,
    limit: Annotated[int | None, Field(gt=0), Shown("At most so many observations of a target", empty="all")] = None,
    slews: Annotated[bool, Shown("Slews to and from targets, too")] = False,
    xtemaster: Annotated[str | None, Shown("Rows of table xtemaster as a CSV file", empty="HEASARC's service")] = None,
    again: Annotated[bool, Shown("Look for observations of targets that were asked for before, too")] = False,
    retry_failed: Annotated[bool, Shown("Exactly observations that were rejected or failed before")] = False,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None, Shown("What runs the tasks", empty="LIGHTLAKE_RUNNER")
    ] = None,
) -> State[SurveyReport]:
    """Bring every RXTE observation of targets into the lake, each a granule of its own.

    The run ends Failed if an observation was rejected or failed; its message says which and why. All the rest is in
    the lake all the same. A run that was killed has lost nothing but the observations in hand, and the next goes on.
    While another run does the same for the same lake, this one waits.
    """
    asked = asked_of(
        target=target,
        sample=sample,
        radius_deg=radius_deg,
        method=method,
        bands=bands,
        chmin=chmin,
        chmax=chmax,
        emin_kev=emin_kev,
        emax_kev=emax_kev,
        pcus=pcus,
        layers=layers,
        bin_s=bin_s,
        gti=gti,
        limit=limit,
        slews=slews,
        xtemaster=xtemaster,
        again=again,
        retry_failed=retry_failed,
    )
    settings = load_settings(runner=runner)
    return surveyed(lake_at(str(lake or settings.url)), settings, partial(pull, asked=asked))
