"""A planet from an empty folder to its period, by SQL and astropy, and to its transits in the plots."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import vl_convert
from helpers.figures import figure
from helpers.mast_lake import hold, read

from lake.cli import main
from lake.query import Lake

FILE = "tess2018206045859-s0001-0000000025155310-0120-s_lc.fits"

# Maxted et al. 2016, A&A 591, A55: period, days, and a mid-transit, BJD(TDB).
PERIOD, PERIOD_ERR = 3.28880, 0.00001
EPOCH, EPOCH_ERR = 2456890.3191, 0.0006

# A page is 860 by 420 pixels: what is that much lower, nobody overlooks.
SEEN = 40


# What a user does: blocks of shell and Python.
BLOCKS = (
    (
        "bash",
        """
printf 'name,ra,dec\\nWASP-126,63.37389,-69.22679\\n' > planets.csv
lightlake init transits
lightlake targets add planets.csv --sample planets --lake transits
lightlake pull tess_kepler --lake transits
""",
    ),
    (
        "python",
        """
import lake
from astropy.timeseries import BoxLeastSquares

with lake.open("transits") as opened:
    rows = opened.sql(
        '''
        SELECT bmjd_tdb, flux, flux_err FROM normalised
        WHERE name = 'WASP-126' AND band = 'tess_spoc_pdcsap' AND exposure_id LIKE 'tess-s0001-%' AND good
        ORDER BY bmjd_tdb
        ''',
        form="pandas",
    )
search = BoxLeastSquares(*rows.to_numpy().T)
found = search.autopower([0.1, 0.12, 0.14], minimum_period=1, maximum_period=10)
best = found.power.argmax()
print(f"every {found.period[best]:.3f} d, {found.depth[best]:.2%} deep, from MJD {found.transit_time[best]:.2f}")
""",
    ),
    (
        "bash",
        """
lightlake plot WASP-126 --band tess_spoc_pdcsap --normalised --to transits.html --lake transits
lightlake plot WASP-126 --band tess_spoc_pdcsap --normalised --fold 3.2888 --epoch 58327.02 --to folded.html -l transits
""",
    ),
)


def command(line: str) -> str:
    """What a command of lightlake says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(shlex.split(line)[1:])
    assert ended.value.code == 0, line
    return said.getvalue()


def pulled(data_dir: Path, url: str) -> None:
    """What the pull brings, of the file at hand."""
    with Lake(url, writable=True) as opened:
        hold(opened, [read(data_dir / "kepler_k2_tess" / FILE)])


class Example(NamedTuple):
    """The folder in which the example was run, what it printed, and what its Python left behind."""

    folder: Path
    printed: str
    names: dict[str, Any]


@pytest.fixture(scope="module")
def example(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Example:
    folder = tmp_path_factory.mktemp("transits")
    printed, names = [], {"__name__": "transits"}
    with contextlib.chdir(folder):
        for language, text in BLOCKS:
            if language == "python":
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    exec(compile(text, "transits", "exec"), names)
                printed.append(said.getvalue())
                continue
            for line in text.splitlines():
                if line.startswith("lightlake pull tess_kepler "):
                    pulled(data_dir, shlex.split(line)[-1])
                elif line.startswith("lightlake "):
                    printed.append(command(line))
                else:
                    subprocess.run(["sh", "-c", line], check=True)
    return Example(folder, "".join(printed), names)


@pytest.mark.long
def test_the_period_is_the_published_one(example: Example) -> None:
    found, best = example.names["found"], example.names["best"]
    # A box begins at tenths of its length, 0.12 d; seven cycles lie between the first transit and the last.
    assert found.duration[best] == 0.12
    step = 0.12 / 10
    assert abs(found.period[best] - PERIOD) <= step / 7 + PERIOD_ERR
    assert 0.006 < found.depth[best] < 0.007
    assert found.depth_snr[best] > 100
    first = found.transit_time[best]
    cycles = round((first + 2400000.5 - EPOCH) / PERIOD)
    expected = EPOCH + cycles * PERIOD - 2400000.5
    assert abs(first - expected) <= step + EPOCH_ERR + cycles * PERIOD_ERR
    assert "every 3.289 d, 0.67% deep, from MJD 58327.02" in example.printed.splitlines()


@pytest.fixture
def drawn(example: Example) -> Callable[[str], np.ndarray]:
    """Return where a page has its points: x and y in pixels, y downwards, as Vega draws them."""

    def drawn(page: str) -> np.ndarray:
        spec = figure(example.folder / page)
        spec["vconcat"] = spec["vconcat"][:1]  # without the zoom
        svg = vl_convert.vegalite_to_svg(spec)
        places = re.findall(
            r'aria-label="[^"]*band[^"]*"[^>]*aria-roledescription="point"[^>]*'
            r' transform="translate\(([-\d.]+),([-\d.]+)\)"',
            svg,
        )
        return np.array(places, float)

    return drawn


@pytest.mark.long
def test_the_folded_plot_shows_the_transit(drawn: Callable[[str], np.ndarray]) -> None:
    x, y = drawn("folded.html").T
    assert len(x) > 17_000
    left, right = 0.0, 860.0  # phases -0.5 and 0.5
    phase = (x - left) / (right - left) - 0.5
    inside = np.abs(phase) < 0.04 / PERIOD
    outside = np.abs(phase) > 0.10 / PERIOD
    noise = np.std(y[outside])
    assert np.median(y[inside]) - np.median(y[outside]) > max(3 * noise, SEEN)
    # Nowhere else: the curve is flat in a hundred bins.
    bins = [np.median(y[outside & (np.floor(phase * 100) == k)]) for k in range(-50, 50) if abs(k + 0.5) > 4]
    assert np.ptp(bins) < noise


def test_eight_transits_are_seen_over_time(drawn: Callable[[str], np.ndarray]) -> None:
    x, y = drawn("transits.html").T
    order = np.argsort(x)
    x, y = x[order], y[order]
    level, noise = np.median(y), 1.4826 * np.median(np.abs(y - np.median(y)))
    smooth = np.array([np.median(y[max(0, i - 15) : i + 16]) for i in range(len(y))])
    low = np.flatnonzero(smooth - level > max(3 * noise, SEEN))
    dips = np.split(low, np.flatnonzero(np.diff(x[low]) > 20) + 1)
    centres = np.array([np.median(x[dip]) for dip in dips if len(dip) > 20])
    assert len(centres) == 8
    between = np.diff(centres) / np.median(np.diff(centres))
    assert np.allclose(between, 1, atol=0.05)


def test_plot_says_what_is_wrong(example: Example, capsys: Any) -> None:
    url, page = str(example.folder / "transits"), str(example.folder / "none.html")
    for arguments, message in (
        (["WASP-12"], "did you mean WASP-126"),
        (["WASP-126", "--band", "G"], "no measurements of WASP-126"),
        (["WASP-126", "--period", "0"], "--fold cannot be 0"),
        (["WASP-126", "--period", "nan"], "--fold cannot be nan"),
        (["WASP-126", "--epoch", "58327"], "add: --fold"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["plot", *arguments, "--to", page, "--lake", url])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    assert not Path(page).exists()
