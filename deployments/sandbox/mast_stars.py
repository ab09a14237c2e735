"""Stars of the stand-in for MAST: what TESS, Kepler and K2 have of them, how MAST names it, and the files' content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from deployments.sandbox.gaia import _uniform as uniform
from deployments.sandbox.heasarc import offset
from deployments.sandbox.mast_fits import product
from deployments.sandbox.ztf import keys

Targets = Sequence[tuple[float, float]]

# Author and obs_collection, exposure time (s) and folder of the dataURI, filled in with the target and sequence.
KINDS: dict[str, tuple[str, str, float, str]] = {
    "spoc": ("SPOC", "TESS", 120, "TESS/product"),
    "spoc_fast": ("SPOC", "TESS", 20, "TESS/product"),
    "tess_spoc": ("TESS-SPOC", "HLSP", 600, "HLSP/tess-spoc/s{sequence:04d}/target/{long}"),
    "qlp": ("QLP", "HLSP", 1800, "HLSP/qlp/s{sequence:04d}/{long}"),
    "kepler": ("Kepler", "Kepler", 1800, "KEPLER/url/missions/kepler/lightcurves/{start}/{target:09d}"),
    "kepler_short": ("Kepler", "Kepler", 60, "KEPLER/url/missions/kepler/lightcurves/{start}/{target:09d}"),
    "k2": ("K2", "K2", 1800, "K2/url/missions/k2/lightcurves/c{sequence}/{block}"),
    "everest": ("EVEREST", "HLSP", 1800, "HLSP/everest/v2/c{sequence:02d}/{block}"),
    "k2sff": ("K2SFF", "HLSP", 1800, "HLSP/k2sff/c{sequence:02d}/{block}"),
}
NAMES = {
    "spoc": "tess{stamp}-s{sequence:04d}-{target:016d}-0120-s_lc.fits",
    "spoc_fast": "tess{stamp}-s{sequence:04d}-{target:016d}-0120-a_fast-lc.fits",
    "tess_spoc": "hlsp_tess-spoc_tess_phot_{target:016d}-s{sequence:04d}_tess_v1_lc.fits",
    "qlp": "hlsp_qlp_tess_ffi_s{sequence:04d}-{target:016d}_tess_v01_llc.fits",
    "kepler": "kplr{target:09d}-{stamp}_llc.fits",
    "kepler_short": "kplr{target:09d}-{stamp}_slc.fits",
    "k2": "ktwo{target:09d}-c{sequence:02d}_llc.fits",
    "everest": "hlsp_everest_k2_llc_{target:09d}-c{sequence:02d}_kepler_v2.0_lc.fits",
    "k2sff": "hlsp_k2sff_k2_lightcurve_{target:09d}-c{sequence:02d}_kepler_v1_llc.fits",
}
# Days of the mission on which observations of a sequence begin: the first, and from one to the next.
FIRST_DAY = {"TESS": (1325.2953, 27.4), "Kepler": (131.513, 93.0), "K2": (1940.0, 75.0)}


@dataclass(frozen=True)
class Star:
    """What one target has in one sector, quarter or campaign, by one pipeline; a size that is known, bytes."""

    kind: str
    target: int
    sequence: int
    place: tuple[float, float]
    name: str
    make: Callable[[], bytes]
    size: int | None = None

    @property
    def mission(self) -> str:
        """TESS, Kepler or K2."""
        return (
            "Kepler" if self.kind.startswith("kepler") else "K2" if self.kind in ("k2", "everest", "k2sff") else "TESS"
        )

    @property
    def uri(self) -> str:
        """The dataURI."""
        digits = f"{self.target:016d}"
        folder = KINDS[self.kind][3].format(
            target=self.target,
            sequence=self.sequence,
            start=f"{self.target:09d}"[:4],
            long="/".join(digits[n : n + 4] for n in range(0, 16, 4)),
            block=f"{self.target // 100_000 * 100_000}/{self.target % 100_000 // 1000 * 1000:05d}",
        )
        return f"mast:{folder}/{self.name}"

    @property
    def target_name(self) -> str:
        """The target's name, as observations have it."""
        prefix = {"kepler": "kplr", "kepler_short": "kplr", "k2": "ktwo", "k2sff": "ktwo"}.get(self.kind)
        return str(self.target) if prefix is None else f"{prefix}{self.target:09d}"

    @property
    def obs_id(self) -> str:
        """The observation's name: all quarters of a target of Kepler's are one observation."""
        if self.mission == "Kepler":
            return f"kplr{self.target:09d}_{'sc' if self.kind == 'kepler_short' else 'lc'}_Q111111111111111111"
        return re.sub(r"_(fast-)?l?lc\.fits$", r"_\1", self.name).removesuffix("_").removesuffix("-")


def stars(targets: Targets, *, seed: int, n: int) -> Iterable[Star]:
    """Yield what there is of stars near targets, all within 0.8 arcsec; kinds take turns, and no target has nothing.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg).
    seed, n
        Seed of everything random, and cadences of a file.
    """
    places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
    key = keys(np.arange(len(places)), seed ^ 0x7E55)
    ra, dec = offset(places, 0.8 * uniform(key, 1) / 3600, 360 * uniform(key, 2))
    plans = (
        (("spoc", 1), ("spoc", 2), ("spoc_fast", 2), ("qlp", 1), ("qlp", 2), ("qlp", 3)),
        (("tess_spoc", 37), ("qlp", 37), ("qlp", 38)),
        (("kepler", 1), ("kepler", 2), ("kepler_short", 2), ("qlp", 14)),
        (("k2", 5), ("everest", 5), ("k2sff", 5), ("everest", 6), ("k2sff", 6), ("k2sff", 7)),
    )
    # FITS keywords have sixteen digits.
    for n_star, place in enumerate(zip(np.round(ra, 9).tolist(), np.round(dec, 9).tolist(), strict=True)):
        for kind, sequence in plans[n_star % len(plans)]:
            tic = 10_000_000 + 1000 * int(90_000 * uniform(key, 3)[n_star]) + n_star
            target = {"kepler": 1_000_000 + n_star, "k2": 210_000_000 + n_star}.get(
                "kepler" if kind.startswith("kepler") else "k2" if kind in ("k2", "everest", "k2sff") else "", tic
            )
            yield star(kind, target, sequence, place, seed=seed, n=n)


def star(
    kind: str, target: int, sequence: int, place: tuple[float, float], *, seed: int = 1, n: int = 50, **more: Any
) -> Star:
    """Return a file that is made when it is asked for; `more` goes to `mast_fits.product`."""
    mission = "Kepler" if kind.startswith("kepler") else "K2" if kind in ("k2", "everest", "k2sff") else "TESS"
    first, step = FIRST_DAY[mission]
    stamp = f"{2009 + sequence:04d}{166 + (kind == 'kepler_short'):03d}043257"
    name = NAMES[kind].format(target=target, sequence=sequence, stamp=stamp)
    made_of = {"spoc_fast": "spoc", "kepler_short": "kepler"}.get(kind, kind)
    cadence_s = {"spoc_fast": 20.0, "kepler_short": 58.85}.get(kind)

    def make() -> bytes:
        return product(
            made_of,
            seed=seed ^ number(name),
            n=n,
            target=target,
            sequence=sequence,
            place=place,
            first=first + step * (sequence - 1),
            cadence_s=cadence_s,
            **more,
        )

    return Star(kind, target, sequence, place, name, make, None if more else _size(made_of, n))


@cache
def _size(made_of: str, n: int) -> int:
    """Return the size of a file of a pipeline with so many cadences, bytes: whole blocks, whatever is in them."""
    return len(product(made_of, seed=1, n=n, target=1, sequence=1, place=(0.0, 0.0), first=0.0))


def number(text: str) -> int:
    """Return a number that depends on a text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
