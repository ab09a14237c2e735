"""Stand-in for the Gaia archive: its source table by TAP, and epoch photometry by DataLink.

Column names, units, zero points and the ways to lay out the photometry are those of DR3; sources and light curves are
random. A source's light curve depends on its source_id and the seed only.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hpgeom
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from deployments.sandbox.heasarc import offset
from deployments.sandbox.server import Request, Response
from deployments.sandbox.tap import TapService, votable

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Targets = Sequence[tuple[float, float]]

TAP_PATH, DATALINK_PATH = "/gaia/tap", "/gaia/data"
FIELD_SOURCES = 500_000
"""Sources away from targets at scale 1."""
SHARE_WITH_EPOCHS = 0.45
STRUCTURES = ("RAW", "INDIVIDUAL", "COMBINED", "WIDE")
MOST_IDS = 5_000
SOLUTION_ID = 375316653866487564

_NEWER = {"DATAMODEL_GAIA": "RAW", "DATAMODEL_STANDARD": "INDIVIDUAL"}
_ZERO_POINTS = {"g": 25.6873668671, "bp": 25.3385422158, "rp": 24.7478955012}  # Vega
_TIMESYS = '<TIMESYS ID="time_frame" refposition="BARYCENTER" timeorigin="2455197.5" timescale="TCB"/>'
_CCDS = ("sm", *(f"af{number}" for number in range(1, 10)), "bp", "rp")
_FLAGS = (
    "photometry_flag_noisy_data",
    *(f"photometry_flag_{ccd}_{what}" for what in ("unavailable", "reject") for ccd in _CCDS),
    *(f"variability_flag_{band}_reject" for band in ("g", "bp", "rp")),
)
_SOURCE_UNITS = {
    "ref_epoch": "yr",
    "ra": "deg",
    "dec": "deg",
    "ra_error": "mas",
    "dec_error": "mas",
    "parallax": "mas",
    "pmra": "mas.yr**-1",
    "pmdec": "mas.yr**-1",
    "phot_g_mean_mag": "mag",
}
_UNITS = {"time": "d", "flux": "'electron'.s**-1", "flux_error": "'electron'.s**-1", "mag": "mag"}
_STEP, _64_BITS = 0x9E3779B97F4A7C15, 0xFFFFFFFFFFFFFFFF


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Serve the source table and the light curves, and return the TAP endpoint. `root` stays empty: making is fast.

    The DataLink endpoint is ``sandbox.endpoints["gaia_datalink"]``; the services, with their settings for tests, are
    ``sandbox.services["gaia"]`` and ``sandbox.services["gaia_datalink"]``.
    """
    sources = gaia_source(targets, seed=seed, n_field=round(FIELD_SOURCES * scale), share_with_epochs=SHARE_WITH_EPOCHS)
    service = TapService(sandbox, TAP_PATH, {"gaiadr3.gaia_source": sources})
    with_epochs = sources.filter(sources["has_epoch_photometry"])["source_id"].to_numpy()
    link = DataLink(sandbox, DATALINK_PATH, with_epochs, seed)
    sandbox.services |= {"gaia": service, "gaia_datalink": link}
    sandbox.endpoints["gaia_datalink"] = link.url
    return service.url


def gaia_source(targets: Targets, *, seed: int, n_field: int, share_with_epochs: float) -> pa.Table:
    """Rows of the source table: one or two at every target, and random ones over the sphere.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg). Each has a source within 0.5 arcsec; every third or so has a
        second, fainter one 0.3 to 0.9 arcsec off.
    seed
        Seed of everything random.
    n_field
        Number of sources away from targets.
    share_with_epochs
        Share of sources that have epoch photometry.
    """
    rng = np.random.default_rng([seed, 5])
    places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
    second = places[rng.random(len(places)) < 0.35]
    first_at = offset(places, rng.uniform(0, 0.5, len(places)) / 3600, rng.uniform(0, 360, len(places)))
    second_at = offset(second, rng.uniform(0.3, 0.9, len(second)) / 3600, rng.uniform(0, 360, len(second)))
    field_at = rng.uniform(0, 360, n_field), np.degrees(np.arcsin(rng.uniform(-1, 1, n_field)))
    ra, dec = (np.concatenate(parts) for parts in zip(first_at, second_at, field_at, strict=True))
    n = len(ra)
    faint = np.repeat([17.0, 19.6, 17.0], [len(places), len(second), n_field])
    spread = np.repeat([2.5, 1.0, 4.0], [len(places), len(second), n_field])
    two = rng.random(n) < 0.15
    pm = rng.standard_t(2.5, (2, n)) * np.repeat([1.0, 5.0], [n - n_field, n_field])
    # As in the real archive, the identifier begins with the source's pixel of level 12.
    pixel = hpgeom.angle_to_pixel(4096, ra, dec)
    return _with_units(
        _SOURCE_UNITS,
        source_id=(pixel.astype(np.int64) << 35) + (np.arange(n) << 7) + 64,
        random_index=rng.permutation(n).astype(np.int64),
        ref_epoch=np.full(n, 2016.0),
        ra=ra,
        dec=dec,
        ra_error=rng.lognormal(-1.5, 0.8, n),
        dec_error=rng.lognormal(-1.5, 0.8, n),
        parallax=pa.array(rng.normal(0.5, 0.8, n), mask=two),
        pmra=pa.array(pm[0], mask=two),
        pmdec=pa.array(pm[1], mask=two),
        phot_g_mean_mag=faint + rng.random(n) * spread,
        has_epoch_photometry=rng.random(n) < share_with_epochs,
    )


def epoch_photometry(source_ids: ArrayLike, seed: int) -> pa.Table:
    """Light curves: a row per source and transit, sorted by both; the same source has the same rows in any company.

    Parameters
    ----------
    source_ids
        Sources; each once, if it is there more often.
    seed
        Seed of everything random.

    Returns
    -------
    pa.Table
        ``source_id``, and the columns of arrays of the bulk release, without the arrays: times in days since
        JD 2455197.5 (TCB), fluxes in electron/s, Vega magnitudes, flags.
    """
    ids = np.unique(np.asarray(source_ids, dtype=np.int64))
    source = _mix(ids.astype(np.uint64) + np.uint64(seed * _STEP & _64_BITS))
    transits = 20 + (41 * _uniform(source, 0)).astype(np.int64)
    of = np.repeat(np.arange(len(ids)), transits)
    number = np.arange(len(of)) - np.repeat(np.cumsum(transits) - transits, transits)
    key = _mix(source[of] + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP))

    time = 1666.0 + 1037.9 * (number + 0.9 * _uniform(key, 1)) / transits[of]
    phase = time / (0.3 * 1000 ** _uniform(source, 1))[of] + _uniform(source, 2)[of]
    mean, amplitude = 17 + 2.7 * _uniform(source, 3), 0.02 + 0.25 * _uniform(source, 4) ** 2
    mag = mean[of] + amplitude[of] * np.sin(2 * np.pi * phase)
    flags = {name: _uniform(key, 100 + place) < 0.02 for place, name in enumerate(_FLAGS)}
    for draw, name in enumerate(("noisy_data", "bp_reject", "rp_reject"), 10):
        flags[f"photometry_flag_{name}"] = _uniform(key, draw) < 0.04
    columns: dict[str, Any] = {"source_id": ids[of], "transit_id": ((time - 1397) * 5.53e13).astype(np.int64)}
    # Per band: colour, scatter relative to G, share of transits without it, share of transits without flux.
    bands = {"g": (0.0, 0.001, 0.0, 0.02), "bp": (0.5, 0.006, 0.08, 0.02), "rp": (-0.7, 0.006, 0.06, 0.02)}
    for draw, (band, (colour, scatter, lacking, failed)) in zip((20, 40, 60), bands.items(), strict=True):
        true = 10 ** (0.4 * (_ZERO_POINTS[band] - mag - colour))
        error = true * scatter * 10 ** (0.25 * (mag - 13)) * (0.7 + 0.6 * _uniform(key, draw))
        noisy = flags[f"photometry_flag_{'noisy_data' if band == 'g' else band + '_reject'}"]
        flux = true + error * _normal(key, draw + 1) * np.where(noisy, 8.0, 1.0)
        if band == "bp":
            flux = np.where(_uniform(key, draw + 3) < 0.004, -0.3 * np.abs(flux), flux)
        gone = _uniform(key, draw + 4) < lacking
        nothing = gone | (_uniform(key, draw + 5) < failed)
        positive = flux > 0
        shown = _ZERO_POINTS[band] - 2.5 * np.log10(np.where(positive, flux, 1.0))
        name = "g_transit" if band == "g" else band
        when = "g_transit_time" if band == "g" else f"{band}_obs_time"
        columns |= {
            when: pa.array(time + {"g": 0.0, "bp": 0.000315, "rp": 0.00037}[band], mask=gone),
            f"{name}_flux": pa.array(flux, mask=nothing),
            f"{name}_flux_error": pa.array(error, mask=nothing),
            f"{name}_flux_over_error": pa.array((flux / error).astype(np.float32), mask=nothing),
            f"{name}_mag": pa.array(shown, mask=nothing | ~positive),
        }
        if band == "g":
            columns["g_transit_n_obs"] = pa.array((7 + 3 * _uniform(key, draw + 6)).astype(np.int8), mask=nothing)
    units = {name: unit for name in columns for end, unit in _UNITS.items() if name.endswith(f"_{end}")}
    return _with_units(units, **columns, **{name: flags[name] for name in _FLAGS})


class DataLink:
    """The DataLink service of the archive, for epoch photometry only; its answer is always a zip of VOTables.

    Attributes
    ----------
    structures : set[str]
        Values of DATA_STRUCTURE that it knows; the newer names go with the old ones.
    refusal : tuple
        Status and words with which it refuses others.
    forget : set[int]
        Sources of which it has nothing, though the source table says otherwise.
    most : int
        Identifiers that one request may have.
    """

    def __init__(self, box: Sandbox, path: str, source_ids: NDArray[np.int64], seed: int) -> None:
        self.url, self.seed, self.most = box.url(path), seed, MOST_IDS
        self.refusal = (400, "DATA_STRUCTURE {} is not supported")
        self.structures, self.forget = set(STRUCTURES), set[int]()
        self._known = set(source_ids.tolist())
        box.mount(path, self._handle)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _handle(self, request: Request) -> Response:
        params, _ = request.form()
        structure = params.get("DATA_STRUCTURE", "INDIVIDUAL").upper()
        structure = _NEWER.get(structure, structure)
        asked = [re.fullmatch(r"(?:Gaia DR3 )?(\d{1,19})", one.strip()) for one in params.get("ID", "").split(",")]
        wrong = {
            "ID must be identifiers with commas between": None in asked,
            f"more than {self.most} identifiers": len(asked) > self.most,
            "RETRIEVAL_TYPE must be EPOCH_PHOTOMETRY": params.get("RETRIEVAL_TYPE") != "EPOCH_PHOTOMETRY",
            "RELEASE must be Gaia DR3": params.get("RELEASE", "Gaia DR3") != "Gaia DR3",
            "FORMAT must be votable": params.get("FORMAT", "votable").lower() != "votable",
        }
        if structure not in self.structures:
            status, reason = self.refusal
            return Response(f"{reason.format(structure)}\n".encode(), status, "text/plain")
        for reason, so in wrong.items():
            if so:
                return Response(f"{reason}\n".encode(), 400, "text/plain")
        ids = ({int(one[1]) for one in asked if one} & self._known) - self.forget
        valid = params.get("VALID_DATA", "false").lower() == "true"
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if ids:
                for name, table in _members(epoch_photometry(sorted(ids), self.seed), structure, valid):
                    archive.writestr(f"EPOCH_PHOTOMETRY{name}.xml", votable(table, head=_TIMESYS))
        return Response(content.getvalue(), 200, "application/zip")


def _members(wide: pa.Table, structure: str, valid: bool) -> Iterator[tuple[str, pa.Table]]:
    """List a zip's members: the ends of their names, and their tables."""
    if structure in ("RAW", "WIDE"):
        if valid:
            bad = pc.or_(wide["photometry_flag_noisy_data"], wide["variability_flag_g_reject"])
            wide = wide.filter(pc.and_not(pc.is_valid(wide["g_transit_flux"]), bad))
        yield f"_{structure}", wide if structure == "WIDE" else _arrays(wide)
        return
    long = _long(wide)
    if valid:
        bad = pc.or_(long["rejected_by_photometry"], long["rejected_by_variability"])
        long = long.filter(pc.and_not(pc.is_valid(long["flux"]), bad))
    if structure == "COMBINED":
        yield "_COMBINED", long
        return
    ids, starts = np.unique(long["source_id"].to_numpy(), return_index=True)
    for one, start, stop in zip(ids.tolist(), starts, [*starts[1:], len(long)], strict=True):
        yield f"-Gaia DR3 {one}", long[int(start) : int(stop)]


def _arrays(wide: pa.Table) -> pa.Table:
    """Gather the transits of each source into a row of arrays."""
    ids, starts, counts = np.unique(wide["source_id"].to_numpy(), return_index=True, return_counts=True)
    offsets = pa.array(np.append(starts, len(wide)).astype(np.int32))
    rows: dict[str, Any] = {
        "solution_id": np.full(len(ids), SOLUTION_ID),
        "source_id": ids,
        "n_transits": counts.astype(np.int16),
    }
    units = {}
    for column in wide.schema:
        if column.name != "source_id":
            rows[column.name] = pa.ListArray.from_arrays(offsets, wide[column.name].combine_chunks())
            units[column.name] = (column.metadata or {}).get(b"unit", b"").decode()
    return _with_units(units, **rows)


def _long(wide: pa.Table) -> pa.Table:
    """One row per transit and band that has a time, sorted by source, band and time."""
    parts = []
    order = (*(f"{ccd}_reject" for ccd in _CCDS), "noisy_data", *(f"{ccd}_unavailable" for ccd in _CCDS))
    bits = np.zeros(len(wide), dtype=np.int64)
    for place, name in enumerate(order):
        bits |= wide[f"photometry_flag_{name}"].to_numpy().astype(np.int64) << place
    for band in ("G", "BP", "RP"):
        name = "g_transit" if band == "G" else band.lower()
        rejected = "noisy_data" if band == "G" else f"{band.lower()}_reject"
        columns = {
            "solution_id": np.full(len(wide), SOLUTION_ID),
            "source_id": wide["source_id"],
            "transit_id": wide["transit_id"],
            "band": pa.array([band] * len(wide)),
            "time": wide["g_transit_time" if band == "G" else f"{name}_obs_time"],
            "mag": wide[f"{name}_mag"],
            "flux": wide[f"{name}_flux"],
            "flux_error": wide[f"{name}_flux_error"],
            "flux_over_error": wide[f"{name}_flux_over_error"],
            "rejected_by_photometry": wide[f"photometry_flag_{rejected}"],
            "rejected_by_variability": wide[f"variability_flag_{band.lower()}_reject"],
            "other_flags": bits,
        }
        parts.append(_with_units(_UNITS, **columns))
    long = pa.concat_tables(parts)
    long = long.take(np.argsort(long["source_id"].to_numpy(), kind="stable"))
    return long.filter(pc.is_valid(long["time"]))


def _with_units(units: dict[str, str], **columns: Any) -> pa.Table:
    table = pa.table(columns)
    fields = [
        one.with_metadata({"unit": units[one.name]}) if units.get(one.name) else one.remove_metadata()
        for one in table.schema
    ]
    return table.cast(pa.schema(fields))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash by the finalizer of SplitMix64, so that any source's numbers are available without those before."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _uniform(keys: NDArray[np.uint64], draw: int) -> Floats:
    step = np.uint64((draw + 1) * 0xD1B54A32D192ED03 & _64_BITS)
    return np.asarray((_mix(keys + step) >> np.uint64(11)) * 2.0**-53)


def _normal(keys: NDArray[np.uint64], draw: int) -> Floats:
    """Draw normal deviates; each takes two draws."""
    radius = np.sqrt(-2 * np.log1p(-_uniform(keys, draw)))
    return np.asarray(radius * np.cos(2 * np.pi * _uniform(keys, draw + 1)))
