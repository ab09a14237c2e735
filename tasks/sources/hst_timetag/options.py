"""Options of HST's photons: the form of the flow, the command and the parameters of granules are made from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lake.errors import ConfigurationError
from lake.redact import redacted
from tasks.options import FormField, Options

if TYPE_CHECKING:
    from tasks.sources.hst_timetag.extract import Selection

# HST points within an arcsecond; proposers' positions and proper motions are off by more.
RADIUS_ARCSEC = 5.0
STEP_S = 2.0


class HstOptions(Options):
    """Options of a pull of COS and STIS exposures."""

    target: Annotated[
        str | None,
        FormField(
            "A target by name, which is looked up if the lake has none, or a position as 'RA DEC', ICRS degrees",
            empty="all targets",
        ),
    ] = None
    sample: Annotated[str | None, FormField("Only targets of this sample", empty="all targets")] = None
    new: Annotated[bool, FormField("Instead of targets: all exposures that became public since the last look")] = False
    hst_name: Annotated[
        str | None,
        FormField(
            "Instead of targets: exposures by the name that HST has, such as JUPITER*, which is the way to moving ones",
            empty="none",
        ),
    ] = None
    files: Annotated[
        str | None, FormField("Folder or s3://BUCKET/PREFIX of corrtag, tag and x1d files", empty="MAST is asked")
    ] = None
    radius_arcsec: Annotated[float, Field(gt=0, le=3600), FormField("Exposures within this of a target, arcsec")] = (
        RADIUS_ARCSEC
    )
    step_s: Annotated[float, Field(gt=0), FormField("Length of a bin, seconds")] = STEP_S
    wavelength_min: Annotated[
        float | None, Field(ge=0), FormField("Shortest wavelength, Angstrom", empty="the detector's")
    ] = None
    wavelength_max: Annotated[
        float | None, Field(gt=0), FormField("Longest wavelength, Angstrom", empty="the detector's")
    ] = None
    airglow: Annotated[bool, FormField("Keep the wavelengths of Lyman alpha and O I of the Earth's atmosphere")] = False
    sun_below_deg: Annotated[
        float | None,
        Field(ge=-90, le=180),
        FormField(
            "Leave out times with the Sun higher than this above the limb, degrees (COS)", empty="leave out none"
        ),
    ] = None
    keep_events: Annotated[bool, FormField("Keep every event, too: table events")] = False
    again: Annotated[bool, FormField("Look for exposures of targets that were asked for before, too")] = False
    retry_failed: Annotated[bool, FormField("Exactly the exposures that failed or were rejected before")] = False

    def model_post_init(self, context: object) -> None:
        """See that they fit together.

        Raises
        ------
        ConfigurationError
            If they do not.
        """
        given = [name for name in ("target", "sample", "new", "hst_name", "files") if getattr(self, name)]
        if len(given) > 1:
            raise ConfigurationError(
                f"{' and '.join(given)} exclude each other", hint="give one of them, or none for all targets"
            )
        if (self.wavelength_min is None) != (self.wavelength_max is None):
            raise ConfigurationError("wavelength_min and wavelength_max belong together", hint="give both")
        if (self.wavelength_min or 0.0) >= (self.wavelength_max or math.inf):
            raise ConfigurationError("no wavelengths are between wavelength_min and wavelength_max")

    @property
    def selection(self) -> Selection:
        """Return which events are used."""
        from tasks.sources.hst_timetag.extract import Selection

        limits = None
        if self.wavelength_min is not None and self.wavelength_max is not None:
            limits = (self.wavelength_min, self.wavelength_max)
        return Selection(
            wavelengths=limits, without_airglow=not self.airglow, step_s=self.step_s, sun_below_deg=self.sun_below_deg
        )

    @property
    def extraction(self) -> dict[str, Any]:
        """Return the parameters of a granule: another value is another extraction."""
        return {
            "step_s": self.step_s,
            "wavelengths": [self.wavelength_min, self.wavelength_max] if self.wavelength_min is not None else None,
            "airglow": self.airglow,
            "sun_below_deg": self.sun_below_deg,
            "keep_events": self.keep_events,
        }

    @property
    def question(self) -> dict[str, Any]:
        """Return the parameters that coverage has of a target: those of a look that was not for it are others."""
        looks = {
            "files": None if self.files is None else redacted(self.files),
            "hst_name": self.hst_name,
            "new": self.new or None,
        }
        looked = {name: value for name, value in looks.items() if value is not None}
        return {**self.extraction, "radius_arcsec": self.radius_arcsec, **looked}
