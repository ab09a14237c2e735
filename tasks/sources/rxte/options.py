"""Options of RXTE: the form of its flow, its command and the parameters of its granules are made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tasks.options import FormField, Options
from tasks.sources.rxte.cut import GTI

if TYPE_CHECKING:
    from tasks.sources.rxte.observations import Extraction

# PCA's collimator is a degree wide at half maximum, so what is farther off is another source's.
RADIUS_DEG = 0.1

# What of the options says how observations are extracted.
_CUT = ("chmin", "chmax", "emin_kev", "emax_kev", "pcus", "layers", "bin_s", "gti")


class RxteOptions(Options):
    """Options of a pull of RXTE's observations."""

    target: Annotated[
        str | None,
        FormField(
            "A target by name, which is looked up if the lake has none, or a position as 'RA DEC', ICRS degrees",
            empty="all targets",
        ),
    ] = None
    sample: Annotated[str | None, FormField("Only targets of this sample", empty="all targets")] = None
    radius_deg: Annotated[float, Field(gt=0, le=5), FormField("Observations within this of a target, degrees")] = (
        RADIUS_DEG
    )
    method: Annotated[
        Literal["products", "heasoft", "standard2"],
        FormField(
            "products: the archive's standard light curves. heasoft: chosen channels by HEASoft's pcaextlc2. "
            "standard2: chosen channels without HEASoft, with the background in them, not corrected for dead time"
        ),
    ] = "products"
    bands: Annotated[
        list[str] | None,
        FormField(
            "Of the standard products, such as pca_a, beside those that the lake has", empty="all that there are"
        ),
    ] = None
    chmin: Annotated[int | None, Field(ge=0, le=255), FormField("First absolute channel, 0 to 255")] = None
    chmax: Annotated[int | None, Field(ge=0, le=255), FormField("Last absolute channel, included")] = None
    emin_kev: Annotated[
        float | None,
        Field(ge=0),
        FormField("Instead of channels: lowest energy, keV; channels follow from each observation's gain epoch"),
    ] = None
    emax_kev: Annotated[float | None, Field(gt=0), FormField("Highest energy, keV")] = None
    pcus: Annotated[list[int] | None, FormField("Detectors 0 to 4", empty="all")] = None
    layers: Annotated[list[int] | None, FormField("Anode layers 1 to 3", empty="all")] = None
    bin_s: Annotated[float | None, FormField("Length of a bin, seconds: a multiple of 16", empty="16")] = None
    gti: Annotated[
        str | None, FormField(f"Good times, as maketime takes them. The usual: {GTI}", empty="the usual")
    ] = None
    limit: Annotated[int | None, Field(gt=0), FormField("Observations of a target, at most", empty="all")] = None
    slews: Annotated[bool, FormField("Slews to and from targets, too")] = False
    xtemaster: Annotated[
        str | None, FormField("Rows of HEASARC's table xtemaster as a CSV file", empty="asked of HEASARC")
    ] = None
    again: Annotated[bool, FormField("Look for observations of targets that were asked for before, too")] = False
    retry_failed: Annotated[bool, FormField("Exactly the observations that failed or were rejected before")] = False

    def model_post_init(self, context: object) -> None:
        """See that they fit together, and that HEASoft is there if it is needed."""
        _ = self.extraction

    @property
    def extraction(self) -> Extraction:
        """Return what is taken of each observation."""
        from tasks.sources.rxte.observations import extraction_of

        return extraction_of(self.method, self.bands, **{name: getattr(self, name) for name in _CUT})

    @property
    def question(self) -> dict[str, Any]:
        """Return what of them tells questions on targets apart, beside the extraction."""
        return {"radius_deg": self.radius_deg, "slews": self.slews, "limit": self.limit}

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters that coverage has of a target."""
        return {**self.extraction.parameters, **self.question}
