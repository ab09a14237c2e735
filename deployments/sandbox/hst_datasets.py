"""What the stand-in for MAST has of COS and STIS: associations of exposures, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

from astropy.io import fits

from deployments.sandbox.hst_events import BROKEN, Exposure
from deployments.sandbox.hst_files import write_corrtag, write_tag, write_x1d

Targets = Sequence[tuple[float, float]]
Make = Callable[[Path], object]

MJD_0 = datetime(1858, 11, 17, tzinfo=UTC)

# Setups of the associations of targets, by turns, and segments.
_KINDS = (
    ("cos_fuv", "AB"),
    ("cos_nuv", ""),
    ("stis", ""),
    ("cos_fuv_low", "A"),
    ("stis_echelle", ""),
    ("cos_image", ""),
    ("cos_fuv", "B"),
    ("stis_image", ""),
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What the archive lists under one name: an exposure, or an association of some.

    Parameters
    ----------
    name
        In small letters.
    released
        When it became public, or will; None: not for a long time.
    generated
        When its files were made.
    aec, mode
        Purpose ("S" or "C") and operating mode.
    """

    name: str
    exposures: tuple[Exposure, ...]
    released: datetime | None
    generated: datetime
    aec: str = "S"
    mode: str = "TIME-TAG"

    @property
    def is_public(self) -> bool:
        """Say whether everyone may have it."""
        return self.released is not None and self.released <= datetime.now(UTC)

    @property
    def science(self) -> tuple[Exposure, ...]:
        """Exposures without those of lamps."""
        return tuple(one for one in self.exposures if one.exptype == "EXTERNAL/SCI") or self.exposures


@dataclass(frozen=True)
class File:
    """A file of a dataset."""

    name: str
    suffix: str
    key: str
    make: Make


def of_targets(targets: Targets, *, seed: int, length_s: float) -> Iterator[Dataset]:
    """Yield an association of two exposures for each position; those of one FUV segment alone are among them."""
    for number, (ra, dec) in enumerate(targets):
        setup, segments = _KINDS[number % len(_KINDS)]
        name = f"QSO-B{int(ra / 15):02d}{int(ra % 15 * 4):02d}{'-' if dec < 0 else '+'}{abs(dec) * 10:03.0f}"
        yield association(
            number, setup, seed=seed, length_s=length_s, target=name, ra=ra, dec=dec, segments=segments or "AB"
        )


def special(*, seed: int, length_s: float) -> dict[str, Dataset]:
    """Return what must be found, left out or rejected, by what it is; each is a degree from the next one.

    A source that flares, one that is eclipsed, and one with a period have rates and backgrounds that are known.
    """
    third = length_s / 3
    plans: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "periodic": ({"period_s": max(6.0, length_s / 20), "amplitude": 0.8, "rate": 60.0}, {}),
        "flare": ({"flare": (third, 6.0, third / 4)}, {}),
        "eclipse": ({"eclipse": (third, 2 * third, 0.9), "setup": "cos_nuv"}, {}),
        "gaps": ({"gaps": ((third, 1.5 * third),), "setup": "cos_fuv_low", "segments": "A"}, {}),
        "moving": ({"is_moving": True, "target": "JUPITER-NORTH-3", "setup": "stis"}, {}),
        "wavecals": ({"wavecal": True}, {}),
        "proprietary": ({}, {"released": None}),
        "calibration": ({"target": "WAVE"}, {"aec": "C"}),
        "dark": ({"target": "DARK", "exptype": "DARK"}, {}),
        "accum": ({"setup": "stis_echelle"}, {"mode": "ACCUM"}),
        **{
            f"broken_{how}": ({"broken": how, "setup": setup}, {})
            for how, setup in zip(BROKEN, cycle(("cos_fuv", "stis", "cos_nuv")), strict=False)
        },
    }
    found = {}
    for number, (what, (exposure, dataset)) in enumerate(plans.items()):
        given = {"target": f"SANDBOX-{what.upper().replace('_', '-')}", "ra": 150.0 + number, "dec": 20.0, **exposure}
        found[what] = replace(association(5_000 + number, seed=seed, length_s=length_s, **given), **dataset)
    return found


def association(
    number: int, setup: str = "cos_fuv", *, n: int = 2, wavecal: bool = False, seed: int = 1, **more: Any
) -> Dataset:
    """Return an association of some exposures, with a lamp's among them if asked for; `more` goes to `Exposure`.

    Its name depends on the number alone, and its time too, of observations over twenty years.
    """
    instrument = "o" if setup.startswith("stis") else "l"
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    program = f"s{digits[number // 3564 % 36]}{digits[number // 99 % 36]}"
    base, start = f"{instrument}{program}{number % 99 + 1:02d}", 55_200.2 + number * 977.31 % 5_400
    exposures = [
        Exposure(
            rootname=f"{base}{'abcdefghijklmnop'[place]}{'vjn'[place % 3]}q",
            setup=setup,
            association=f"{base}010",
            start_mjd=start + 0.03 * place,
            fp_pos=1 + place % 4,
            seed=seed,
            proposal=13_000 + number % 3_000,
            **more,
        )
        for place in range(n)
    ]
    if wavecal:
        exposures.append(replace(exposures[0], rootname=f"{base}zzq", target="WAVE", exptype="WAVECAL"))
    observed = MJD_0 + timedelta(days=start)
    return Dataset(
        name=f"{base}010",
        exposures=tuple(exposures),
        # Whoever proposed an observation has it for themselves for a year.
        released=observed + timedelta(days=365),
        generated=observed + timedelta(days=30),
    )


def survey(n: int, *, seed: int = 1, length_s: float = 60.0, broken: float = 0.05, targets: int = 20) -> list[Dataset]:
    """Return associations of an exposure each, of some targets by turns and in all setups.

    Parameters
    ----------
    n
        How many.
    broken
        Share that is broken, in all ways of `BROKEN` by turns, spread evenly.
    """
    found = []
    every = round(1 / broken) if broken else n + 1
    for number in range(n):
        place, target = number // every, number % targets
        # A target is seen in one setup, so that its exposures belong together.
        setup, segments = _KINDS[target % len(_KINDS)]
        found.append(
            association(
                10_000 + number,
                setup,
                n=1,
                seed=seed,
                length_s=length_s,
                target=f"SURVEY-{target:03d}",
                ra=target * 17.3 % 360,
                dec=target * 7.1 % 120 - 60,
                segments=segments or "AB",
                broken=BROKEN[place % len(BROKEN)] if number % every == every - 1 else None,
            )
        )
    return found


def write_files(folder: Path, dataset: Dataset) -> list[Path]:
    """Write the files of a dataset into a folder, such as one that was downloaded before."""
    folder.mkdir(parents=True, exist_ok=True)
    found = files(dataset, dataset.exposures)
    for file in found:
        path = folder / file.name
        path.unlink(missing_ok=True)
        file.make(path)
    return [folder / file.name for file in found]


def files(dataset: Dataset, exposures: Sequence[Exposure]) -> list[File]:
    """Return the files of a dataset, or of some of its exposures."""
    key = hashlib.blake2b(repr(dataset.exposures).encode(), digest_size=6).hexdigest()
    found: list[tuple[str, str, Make]] = [
        (f"{dataset.name}_{name}.fits", name.upper(), _stub) for name in ("asn", "jit")
    ]
    first = exposures[0]
    if first.of.instrument == "STIS":
        found.append((f"{dataset.name}_tag.fits", "TAG", lambda path: write_tag(path, dataset.exposures)))
        if not first.of.is_image:
            found.append((f"{dataset.name}_x1d.fits", "X1D", lambda path: write_x1d(path, first)))
        return [File(name, suffix, key, make) for name, suffix, make in found]
    for one in exposures:
        segments = one.segments if one.of.detector == "FUV" else ("",)
        for segment in segments:
            suffix = f"corrtag_{segment.lower()}" if segment else "corrtag"
            found.append((f"{one.rootname}_{suffix}.fits", suffix.upper(), _corrtag(one, segment)))
        if not one.of.is_image:
            found.append((f"{one.rootname}_x1d.fits", "X1D", _x1d(one)))
        found.append((f"{one.rootname}_spt.fits", "SPT", _stub))
    if not first.of.is_image:
        found.append((f"{dataset.name}_x1dsum.fits", "X1DSUM", _x1d(first)))
    return [File(name, suffix, key, make) for name, suffix, make in found]


def _corrtag(exposure: Exposure, segment: str) -> Make:
    return lambda path: write_corrtag(path, exposure, segment)


def _x1d(exposure: Exposure) -> Make:
    return lambda path: write_x1d(path, exposure)


def _stub(path: Path) -> None:
    """Write a file that nobody looks into."""
    fits.PrimaryHDU().writeto(path)
