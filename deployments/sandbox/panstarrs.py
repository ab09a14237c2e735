"""Stand-in for Pan-STARRS DR2 as MAST publishes it: HATS catalogues of objects and of detections, each with a margin.

Columns and their types are those of the published tables; those that have no made-up value have the survey's own -999.
A detection is in the partition of its own position, which near an edge is not always the one of its object. Values
depend on the seed and the arguments only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deployments.sandbox.gaia import _mix as mix
from deployments.sandbox.gaia import _normal as normal
from deployments.sandbox.gaia import _uniform as uniform
from deployments.sandbox.heasarc import offset
from deployments.sandbox.ztf import Floats, Ints, Keys, field_positions, keys, write_catalog

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Targets = Sequence[tuple[float, float]]

OBJECTS, DETECTIONS = "otmo", "detection"
"""Folders of the two catalogues; those of their margins end in `MARGIN`."""
MARGIN = "_10arcs"
FIELD_OBJECTS = 20_000
"""Objects away from targets at scale 1, with some 60 detections each."""
MISSING = -999
BANDS = "grizy"
MOST_PER_BAND = 16

_CHUNK = 50_000
_OBJECT_COLUMNS = """
objName:U objNameHMS:U objAltName1:U objAltName2:U objAltName3:U objPopularName:U objID:i8 uniquePspsOBid:i8
ippObjID:i8 surveyID:i2 htmID:i8 zoneID:i4 tessID:i2 projectionID:i2 skyCellID:i2 randomID:f8 batchID:i8
dvoRegionID:i4 processingVersion:i2 objInfoFlag:i4 astrometryCorrectionFlag:i4 qualityFlag:i2 raStack:f8 decStack:f8
raStackErr:f8 decStackErr:f8 raMean:f8 decMean:f8 raMeanErr:f8 decMeanErr:f8 pmra:f8 pmdec:f8 pmraErr:f8 pmdecErr:f8
epochMean:f8 posMeanChisq:f8 cx:f8 cy:f8 cz:f8 lambda:f8 beta:f8 l:f8 b:f8 nStackObjectRows:i2 nStackDetections:i2
nDetections:i2 ng:i2 nr:i2 ni:i2 nz:i2 ny:i2
"""
_BAND_COLUMNS = """
QfPerfect:f8 MeanPSFMag:f8 MeanPSFMagErr:f8 MeanPSFMagStd:f8 MeanPSFMagNpt:i2 MeanPSFMagMin:f8 MeanPSFMagMax:f8
MeanKronMag:f8 MeanKronMagErr:f8 MeanKronMagStd:f8 MeanKronMagNpt:i2 MeanApMag:f8 MeanApMagErr:f8 MeanApMagStd:f8
MeanApMagNpt:i2 Flags:i4
"""
_DETECTION_COLUMNS = """
objID:i8 uniquePspsP2id:i8 detectID:i8 ippObjID:i8 ippDetectID:i8 filterID:i2 surveyID:i2 imageID:i8 randomDetID:f8
dvoRegionID:i4 obsTime:f8 xPos:f8 yPos:f8 xPosErr:f8 yPosErr:f8 pltScale:f8 posAngle:f8 ra:f8 dec:f8 raErr:f8
decErr:f8 extNSigma:f8 zp:f8 telluricExt:f8 expTime:f8 airMass:f8 psfFlux:f8 psfFluxErr:f8 psfMajorFWHM:f8
psfMinorFWHM:f8 psfTheta:f8 psfCore:f8 psfQf:f8 psfQfPerfect:f8 psfChiSq:f8 psfLikelihood:f8 momentXX:f8 momentXY:f8
momentYY:f8 momentR1:f8 momentRH:f8 momentM3C:f8 momentM3S:f8 momentM4C:f8 momentM4S:f8 apFlux:f8 apFluxErr:f8
apFillF:f8 apRadius:f8 kronFlux:f8 kronFluxErr:f8 kronRad:f8 sky:f8 skyErr:f8 infoFlag:i8 infoFlag2:i4 infoFlag3:i4
processingVersion:i2
"""
_INFO_FLAG_3 = (7_374_912, 124_815_424, 40_929_344, 7_342_144, 124_782_656)
_NANO_JY = 1e-9


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Write the catalogues under `root` unless they are there, and return the folder with the four of them."""
    folder = root / "panstarrs"
    # Raise "format" when what is written changes, so that cached catalogues are made anew.
    key = {"format": 1, "seed": seed, "scale": float(scale), "targets": np.array(targets, dtype=float).tolist()}
    n_field = round(FIELD_OBJECTS * scale)
    rows = max(50, n_field // 16)
    sandbox.cached(
        folder / OBJECTS / "hats.properties",
        key,
        lambda: write_collection(folder, targets, seed=seed, n_field=n_field, max_rows=rows),
    )
    return str(folder)


def write_collection(
    folder: Path,
    targets: Targets,
    *,
    seed: int,
    n_field: int,
    max_rows: int = 5_000,
    row_group: int = 10_000,
    orders: tuple[int, int] = (1, 9),
) -> None:
    """Write the catalogues ``detection`` and ``otmo``, in this order, with their margins of 10 arcsec beside them.

    Parameters
    ----------
    folder
        The folder of the four. What is in it is removed.
    targets
        Positions (right ascension, declination, deg). Each has an object within 0.4 arcsec; some have a second one,
        without detections in stacks, up to 0.9 arcsec off. Some objects are so faint that fluxes are negative.
    seed
        Seed of everything random.
    n_field
        Number of objects away from targets; a part of them is in a dense cluster.
    max_rows
        Objects that a partition may have; a partition of detections may have 30 times as many.
    row_group
        Rows of a row group.
    orders
        Lowest and highest HEALPix order of a partition.
    """
    objects = _Objects(targets, seed, n_field)
    shutil.rmtree(folder, ignore_errors=True)
    write_catalog(
        folder / DETECTIONS,
        *objects.detection_positions(),
        objects.detections,
        ra_column="ra",
        dec_column="dec",
        margin=folder / (DETECTIONS + MARGIN),
        max_rows=30 * max_rows,
        row_group=row_group,
        orders=orders,
        catalog_type="source",
    )
    write_catalog(
        folder / OBJECTS,
        objects.ra,
        objects.dec,
        objects.rows,
        ra_column="raMean",
        dec_column="decMean",
        margin=folder / (OBJECTS + MARGIN),
        max_rows=max_rows,
        row_group=row_group,
        orders=orders,
    )


class _Objects:
    """Rows of both catalogues, by number; the detections of an object follow each other, by band and time."""

    def __init__(self, targets: Targets, seed: int, n_field: int) -> None:
        places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
        field = field_positions(n_field, seed, south=-30.5)
        second = uniform(keys(np.arange(len(places)), seed ^ 0x9A5), 1) < 0.3
        sky = np.concatenate([places, places[second], field])
        kind = np.repeat([0, 1, 2], [len(places), int(second.sum()), len(field)])
        self.key = keys(np.arange(len(sky)), seed ^ 0x1951)
        off = np.choose(kind, [0.4 * uniform(self.key, 1), 0.3 + 0.6 * uniform(self.key, 1), 0.0 * self.key]) / 3600
        self.ra, self.dec = offset(sky, off, 360 * uniform(self.key, 2))
        self.stacked = np.where(kind == 1, 0, 5)
        zone = ((self.dec + 90) * 120).astype(np.int64)
        micro = np.round(self.ra * 1e6).astype(np.int64)
        self.object_id = (zone * 10**9 + micro) * 10**4 + np.arange(len(sky)) % 10**4
        # Zero to MOST_PER_BAND detections in each of the five bands; a few bands of a few objects have none.
        draws = np.column_stack([uniform(self.key, 10 + band) for band in range(5)])
        self.counts = np.where(draws < 0.03, 0, 5 + ((MOST_PER_BAND - 4) * draws)).astype(np.int64)
        self.first = np.concatenate(([0], np.cumsum(self.counts.sum(axis=1))))
        self.flux = 1e-6 * 10 ** (
            4 * uniform(self.key, 20) ** 1.3 - 0.5
        )  # in Jy; the faintest are as faint as the noise

    def rows(self, which: Ints) -> pa.Table:
        key, counts = self.key[which], self.counts[which]
        ra, dec = self.ra[which], self.dec[which]
        lon, lat = np.radians(ra), np.radians(dec)
        values: dict[str, Any] = {
            "objName": [f"PSO J{r:010.6f}{d:+010.6f}" for r, d in zip(ra.tolist(), dec.tolist(), strict=True)],
            "objID": self.object_id[which],
            "uniquePspsOBid": 10**15 + which,
            "ippObjID": which,
            "surveyID": np.zeros(len(which)),
            "zoneID": (dec + 90) * 120,
            "randomID": uniform(key, 30),
            "objInfoFlag": np.full(len(which), 436_224),
            "qualityFlag": np.where(self.stacked[which] > 0, 53, 4),
            "raMean": ra,
            "decMean": dec,
            "raMeanErr": 0.01 * uniform(key, 31),
            "decMeanErr": 0.01 * uniform(key, 32),
            "raStack": np.where(self.stacked[which] > 0, ra, MISSING),
            "decStack": np.where(self.stacked[which] > 0, dec, MISSING),
            "epochMean": np.full(len(which), 56_000.0),
            "posMeanChisq": 0.5 + uniform(key, 33),
            "cx": np.cos(lat) * np.cos(lon),
            "cy": np.cos(lat) * np.sin(lon),
            "cz": np.sin(lat),
            "nStackObjectRows": self.stacked[which] > 0,
            "nStackDetections": self.stacked[which],
            "nDetections": counts.sum(axis=1),
            **{f"n{band}": counts[:, n] for n, band in enumerate(BANDS)},
        }
        columns = _OBJECT_COLUMNS.split()
        for number, band in enumerate(BANDS):
            columns += [band + column for column in _BAND_COLUMNS.split()]
            seen = counts[:, number] > 0
            flux = self._true_flux(which, number)
            mag, error = (
                8.90 - 2.5 * np.log10(flux),
                1.086 * _noise(flux) / flux / np.sqrt(np.maximum(counts[:, number], 1)),
            )
            for name, value in {
                "MeanPSFMag": mag,
                "MeanPSFMagErr": error,
                "MeanPSFMagStd": 3 * error,
                "MeanPSFMagMin": mag - 5 * error,
                "MeanPSFMagMax": mag + 5 * error,
                "MeanKronMag": mag + 0.02,
                "MeanKronMagErr": error,
                "MeanApMag": mag - 0.01,
                "MeanApMagErr": error,
                "QfPerfect": np.full(len(which), 0.998),
            }.items():
                values[band + name] = np.where(seen, value, MISSING)
            for name in ("PSF", "Kron", "Ap"):
                values[f"{band}Mean{name}MagNpt"] = counts[:, number]
            values[f"{band}Flags"] = np.where(seen, 115_000, 0)
        return _table(columns, values, len(which))

    def detection_positions(self) -> tuple[Floats, Floats]:
        total = int(self.first[-1])
        ra, dec = np.empty(total), np.empty(total)
        for start in range(0, total, _CHUNK):
            part = slice(start, min(start + _CHUNK, total))
            ra[part], dec[part] = self._places(np.arange(part.start, part.stop))[-2:]
        return ra, dec

    def _places(self, which: Ints) -> tuple[Ints, Ints, Keys, Floats, Floats]:
        of = np.searchsorted(self.first, which, side="right") - 1
        number = which - self.first[of]
        key = mix(self.key[of] + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        sky = np.column_stack([self.ra[of], self.dec[of]])
        ra, dec = offset(sky, 0.04 * np.abs(normal(key, 1)) / 3600, 360 * uniform(key, 3))
        return of, number, key, ra, dec

    def _true_flux(self, of: Ints, band: int | Ints) -> Floats:
        colour = 1 + 2 * uniform(self.key[of], 21)
        return np.asarray(self.flux[of] * colour ** (np.asarray(band) / 4 - 0.5))

    def detections(self, which: Ints) -> pa.Table:
        of, number, key, ra, dec = self._places(which)
        before = np.concatenate((np.zeros((len(of), 1), dtype=np.int64), np.cumsum(self.counts[of], axis=1)), axis=1)
        band = (number[:, None] >= before[:, 1:]).sum(axis=1)
        visit = number - before[np.arange(len(of)), band]
        # Exposures come in pairs, 17 minutes apart.
        night = mix(self.key[of] + (64 * band + visit // 2).astype(np.uint64))
        pairs = (self.counts[of, band] + 1) // 2
        time = 55_000.2 + 1_950 * (visit // 2 + 0.9 * uniform(night, 1)) / pairs + 0.0118 * (visit % 2)
        flux = self._true_flux(of, band)
        error = _noise(flux) * (0.8 + 0.4 * uniform(key, 5))
        change = 1 + 0.2 * uniform(self.key[of], 22) * np.sin(2 * np.pi * (time / 300 + uniform(self.key[of], 23)))
        psf, missing = flux * change + error * normal(key, 6), uniform(key, 8) < 0.02
        poor = uniform(key, 9) < 0.03
        aperture = psf * 1.01 + 1.2 * error * normal(key, 10)
        values: dict[str, Any] = {
            "objID": self.object_id[of],
            "uniquePspsP2id": 10**15 + which,
            "ippObjID": of,
            "ippDetectID": number,
            "detectID": np.floor((time - 54_100) * 1e6).astype(np.int64) * 10**8 + which % 10**8,
            "filterID": band + 1,
            "surveyID": np.zeros(len(of)),
            "imageID": np.floor((time - 54_100) * 1e4),
            "randomDetID": uniform(key, 12),
            "obsTime": np.where(uniform(key, 13) < 0.002, MISSING, time),
            "ra": ra,
            "dec": dec,
            "raErr": 0.02 + 0.05 * error / flux,
            "decErr": 0.02 + 0.05 * error / flux,
            "zp": 24.5 + 0.05 * normal(night, 2),
            "expTime": np.array([43.0, 40.0, 45.0, 30.0, 30.0])[band],
            "airMass": 1 + 0.6 * uniform(night, 4),
            "psfFlux": np.where(missing, MISSING, psf),
            "psfFluxErr": np.where(missing, MISSING, error),
            "psfMajorFWHM": 1.1 + 0.8 * uniform(night, 5),
            "psfMinorFWHM": 1.0 + 0.7 * uniform(night, 5),
            "psfQf": np.where(poor, 0.7, 0.999),
            "psfQfPerfect": np.where(poor, 0.95 * uniform(key, 14), 0.9995 - 0.003 * uniform(key, 14)),
            "apFlux": np.where(missing & (number % 2 == 0), MISSING, aperture),
            "apFluxErr": np.where(missing & (number % 2 == 0), MISSING, 1.2 * error),
            "sky": 1 + uniform(night, 6),
            "infoFlag": np.where(poor, 102_760_581, 102_760_517),
            "infoFlag2": np.full(len(of), 128),
            "infoFlag3": np.where(poor, 34_880, np.array(_INFO_FLAG_3)[(5 * uniform(night, 7)).astype(int)]),
            "processingVersion": np.full(len(of), 3),
        }
        return _table(_DETECTION_COLUMNS.split(), values, len(of))


def _noise(flux: Floats) -> Floats:
    """Error of a single detection, in Jy: sky and the source's own photons."""
    return np.asarray(np.hypot(900 * _NANO_JY, np.sqrt(flux * 2 * _NANO_JY)))


def _table(columns: Sequence[str], values: dict[str, Any], n: int) -> pa.Table:
    if wrong := values.keys() - {column.split(":")[0] for column in columns}:
        raise ValueError(f"no such columns: {wrong}")
    arrays = {}
    for column in columns:
        name, kind = column.split(":")
        if kind == "U":
            arrays[name] = pa.array(values.get(name, [str(MISSING)] * n), pa.string())
        else:
            filled: NDArray[Any] = np.asarray(values.get(name, np.full(n, MISSING)))
            arrays[name] = pa.array(filled.astype(kind))
    return pa.table(arrays)
