"""Colours and shapes of bands."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.analysis.figures import bands
from tasks.analysis.figures.bands import colour_of, styles
from tasks.sources.registry import SURVEYS, known


def hue(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return float(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))


def test_scales_rise() -> None:
    assert np.diff(bands._WAVELENGTHS).min() > 0
    assert np.diff(bands._AT).min() > 0
    assert bands._AT[-1] == len(bands._RAINBOW) - 1


def test_blue_is_short_and_red_is_long() -> None:
    hues = [hue(colour_of(wavelength)) for wavelength in (300, 475, 620, 760, 870)]
    assert hues == sorted(hues, reverse=True) or hues[0] < 0, hues
    assert colour_of(50) == colour_of(120) == "#6f4c9b"
    assert colour_of(9000) == colour_of(4600) == "#521a13"


def test_every_band_of_every_archive_has_one_style() -> None:
    every = {**known(), **{name: survey.origin for name, survey in SURVEYS.items()}}
    all_bands = [(name, band.band, band.wavelength_nm) for name, one in every.items() for band in one.bands]
    found = styles(all_bands, list(every))
    assert len(found) == len(all_bands)
    some = styles([one for one in all_bands if one[0] == "ztf"], list(every))
    assert all(found[key] == style for key, style in some.items()), "the same, whatever else there is"
    assert len({style.shape for style in found.values()}) == len(every), "a shape tells the survey"


def test_every_band_of_a_survey_without_wavelengths_has_a_colour_of_its_own() -> None:
    origin = SURVEYS["rxte"].origin
    names = [*known(), *SURVEYS]
    found = styles([(origin.name, one.band, one.wavelength_nm) for one in origin.bands], names)
    assert len(found) > 30
    assert len({style.colour for style in found.values()}) == len(found)
    for (_, band), style in found.items():
        lightness = sum(int(style.colour[i : i + 2], 16) for i in (1, 3, 5))
        main = found[origin.name, band.removesuffix("_src").removesuffix("_bkg")].colour
        of_main = sum(int(main[i : i + 2], 16) for i in (1, 3, 5))
        assert (lightness > of_main, lightness < of_main) == (band.endswith("_bkg"), band.endswith("_src")), band


@pytest.mark.parametrize(
    ("one", "other"), [(("ztf", "ztf_g"), ("panstarrs", "ps1_g")), (("ztf", "ztf_r"), ("panstarrs", "ps1_r"))]
)
def test_the_same_filter_of_two_surveys_looks_alike(one: tuple[str, str], other: tuple[str, str]) -> None:
    every = known()
    found = styles([(name, b.band, b.wavelength_nm) for name in ("ztf", "panstarrs") for b in every[name].bands])
    parts = [[int(found[key].colour[i : i + 2], 16) for i in (1, 3, 5)] for key in (one, other)]
    assert np.abs(np.subtract(*parts)).max() < 25
