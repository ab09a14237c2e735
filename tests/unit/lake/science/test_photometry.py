"""Magnitudes and fluxes, against published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.science.photometry import AB_ZERO_POINT_JY, flux_err, flux_mjy, magnitude, magnitude_err


def test_ab_magnitudes_by_their_definition() -> None:
    # Oke & Gunn 1983: AB = -2.5 log10 f - 48.60, f in erg s-1 cm-2 Hz-1, which is 1e26 mJy.
    f_nu = 10 ** (-0.4 * (20 + 48.6))
    assert flux_mjy(20.0, AB_ZERO_POINT_JY) == pytest.approx(f_nu * 1e26, rel=1e-4)
    # The "23.9 microjansky" form: 3.631 uJy is AB 22.5.
    assert flux_mjy(22.5, AB_ZERO_POINT_JY) == pytest.approx(3.631e-3, rel=1e-12)


def test_vega_magnitudes_by_their_own_zero_point() -> None:
    # W1 of AllWISE: AB = Vega + 2.699, the same as 302.3 Jy (so that Vega 22.5 is 3.0227e-4 mJy).
    assert flux_mjy(22.5, AB_ZERO_POINT_JY * 10 ** (-0.4 * 2.699)) == pytest.approx(3.022734e-4, rel=1e-4)


@given(st.floats(-5, 35), st.floats(1e-4, 0.3))
def test_there_and_back(mag: float, err: float) -> None:
    flux = flux_mjy(mag, AB_ZERO_POINT_JY)
    assert magnitude(flux, AB_ZERO_POINT_JY) == pytest.approx(mag, abs=1e-9)
    assert magnitude_err(flux, flux_err(flux, err)) == pytest.approx(err)


def test_one_per_cent_is_1_0857_hundredths_of_a_magnitude() -> None:
    assert magnitude_err(100.0, 1.0) == pytest.approx(0.010857, abs=1e-6)


def test_what_is_not_positive_has_no_magnitude() -> None:
    fluxes = np.array([-1.0, 0.0, np.nan, 1.0])
    assert np.isnan(magnitude(fluxes, AB_ZERO_POINT_JY)).tolist() == [True, True, True, False]
    assert np.isnan(magnitude_err(fluxes, 0.1)).tolist() == [True, True, True, False]
