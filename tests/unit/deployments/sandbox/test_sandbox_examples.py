"""What the sandbox has for its readers: samples of papers, and a planet with its published numbers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from deployments.sandbox import literature, planet
from deployments.sandbox.server import Sandbox
from lake.science.sky import separation_arcsec
from lake.settings import load_settings
from tasks.samples.collect import collect
from tasks.samples.literature import LITERATURE


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    with Sandbox.start(tmp_path, archives=literature.SERVICES) as box:
        literature.add(box)
        for name, endpoint in box.endpoints.items():
            monkeypatch.setenv(f"LIGHTLAKE_ENDPOINTS__{name.upper()}", endpoint)
        yield box


def test_samples_are_as_many_as_the_services_had(box: Sandbox, tmp_path: Path) -> None:
    places = np.array(literature.places())
    for key in ("lamassa15", "macleod16_own", "green22"):
        (found,) = collect(key, {}, load_settings(url=str(tmp_path / "lake")))
        ra, dec = (found.targets[name].to_numpy() for name in ("ra", "dec"))
        assert len(ra) == LITERATURE[key].expected
        nearest = [separation_arcsec(*place, places[:, 0], places[:, 1]).min() for place in zip(ra, dec, strict=True)]
        assert max(nearest) < 0.1
    # The object of LaMassa et al. is one of MacLeod et al.
    assert len(places) == 1 + 10 + 19
    apart = [separation_arcsec(*one, *np.delete(places, n, axis=0).T).min() for n, one in enumerate(places)]
    assert sum(one < 1 for one in apart) == 2
    assert min(one for one in apart if one > 1) > 3600


def test_the_planet_has_the_published_period_and_depth() -> None:
    star = planet.wasp_126(seed=3)
    with fits.open(io.BytesIO(star.make())) as file:
        head, table = file[0].header, file[1].data
        assert (head["TICID"], head["SECTOR"]) == (planet.TIC, 1)
        time, flux, quality = table["TIME"] + 2457000.0, table["PDCSAP_FLUX"], table["QUALITY"]
    good = np.isfinite(flux) & (quality == 0)
    assert 0.9 < good.mean() < 1
    cycle = (time[good] - planet.EPOCH) / planet.PERIOD
    phase = (cycle + 0.5) % 1 - 0.5
    inside, outside = np.abs(phase) * planet.PERIOD < 0.04, np.abs(phase) * planet.PERIOD > 0.08
    assert len(set(np.round(cycle[inside]))) == 8
    depth = 1 - flux[good][inside].mean() / flux[good][outside].mean()
    assert depth == pytest.approx(planet.DEPTH, rel=0.02)
