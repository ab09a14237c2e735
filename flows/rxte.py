"""Pull RXTE's observations of targets, as a flow."""

from __future__ import annotations

from functools import partial
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
        str | None, FormField("A target of the lake by name, or a new one as 'RA DEC' in degrees", empty="all targets")
    ] = None,
    sample: Annotated[str | None, FormField("Only targets of this sample", empty="all targets")] = None,
    lake: Annotated[str | None, FormField("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")] = None,
    radius_deg: Annotated[float, Field(gt=0, le=5), FormField("Observations within this of a target")] = RADIUS_DEG,
    method: Annotated[
        Literal["products", "heasoft", "standard2"],
        FormField(
            "products: the archive's standard light curves. heasoft: chosen channels by pcaextlc2. "
            "standard2: chosen channels without HEASoft, background in them, dead time not corrected"
        ),
    ] = "products",
    bands: Annotated[
        list[str] | None,
        FormField(
            "Of the standard products, such as pca_a, beside those that the lake has", empty="all that there are"
        ),
    ] = None,
    chmin: Annotated[int | None, Field(ge=0, le=255), FormField("First absolute channel")] = None,
    chmax: Annotated[int | None, Field(ge=0, le=255), FormField("Last absolute channel")] = None,
    emin_kev: Annotated[float | None, Field(ge=0), FormField("Instead of channels: lowest energy, keV")] = None,
    emax_kev: Annotated[float | None, Field(gt=0), FormField("Highest energy, keV")] = None,
    pcus: Annotated[list[int] | None, FormField("Detectors 0 to 4", empty="all")] = None,
    layers: Annotated[list[int] | None, FormField("Anode layers 1 to 3", empty="all")] = None,
    bin_s: Annotated[float | None, FormField("Length of a bin, seconds: a multiple of 16", empty="16")] = None,
    gti: Annotated[
        str | None, FormField(f"Good times, as maketime takes them. The usual: {GTI}", empty="the usual")
    ] = None,
    limit: Annotated[int | None, Field(gt=0), FormField("Observations of a target, at most", empty="all")] = None,
    slews: Annotated[bool, FormField("Slews to and from targets, too")] = False,
    xtemaster: Annotated[
        str | None, FormField("Rows of table xtemaster as a CSV file", empty="asked of HEASARC")
    ] = None,
    again: Annotated[bool, FormField("Look for observations of targets that were asked for before, too")] = False,
    retry_failed: Annotated[bool, FormField("Exactly observations that were rejected or failed before")] = False,
    runner: Annotated[
        Literal["threads", "processes", "dask"] | None, FormField("What runs the tasks", empty="LIGHTLAKE_RUNNER")
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
