"""Stand-in for ESO's catalogue service with the public VIRAC2, made out of tiles of the other stand-in.

So both inputs hold the same detections. Names of columns are those of the release. Of VVVX_VIRAC_V2_OBS only the name
is known: its columns here are those of the tiles' catalogue of pawprints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deployments.sandbox.tap import Job, TapError, TapService
from deployments.sandbox.virac import BANDS, tile_name, write_tile

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Array = NDArray[Any]

TAP_PATH = "/virac/tap_cat"
PREFIX = "VVVX_VIRAC_V2_"
TILE = (1024, 9_000_000)
"""The tile that `mount` serves."""
REF_EPOCH = 2014.0
SHARE_FLAGGED = 0.02
"""Share of detections with a phot_flag; the tiles have none."""


class CatalogueService(TapService):
    """ESO's: it has no function DISTANCE."""

    def _query(self, params: Mapping[str, str], files: Mapping[str, bytes], job: Job | None = None) -> bytes:
        if "DISTANCE" in params.get("QUERY", "").upper():
            raise TapError("Function DISTANCE is not supported")
        return super()._query(params, files, job)


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Sequence[tuple[float, float]] = ()) -> str:
    """Serve a tile's worth of the release, and return the TAP endpoint. The tile is written under `root`.

    The service, with its settings for tests, is ``sandbox.services["virac"]``. Targets play no part: the survey is
    where it is.
    """
    nside, pixel = TILE
    path = root / "virac" / tile_name(nside, pixel)
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"nside": nside, "pixel": pixel, "n_sources": round(17_000 * scale), "seed": seed}
    sandbox.cached(path, options, lambda: write_tile(path, **options))
    return serve(sandbox, [path], seed=seed).url


def serve(sandbox: Sandbox, tiles: Sequence[Path], *, seed: int = 0, **more: Any) -> CatalogueService:
    """Serve what some tiles hold, all at one endpoint; `more` goes to the service."""
    parts = [tables(tile, seed) for tile in tiles]
    joined = {name: pa.concat_tables([part[name] for part in parts]) for name in parts[0]}
    service = CatalogueService(sandbox, TAP_PATH, joined, **more)
    sandbox.services["virac"] = service
    sandbox.endpoints["virac"] = service.url
    return service


def tables(path: Path, seed: int = 0) -> dict[str, pa.Table]:
    """Return the tables SOURCES, LC and OBS, by their full names, that a tile amounts to.

    Parameters
    ----------
    path
        A tile, as `write_tile` leaves it.
    seed
        Seed of what tiles do not have: phot_flag.
    """
    with h5py.File(path) as file:
        catalogue = {name: file["catIndex"][name][:] for name in file["catIndex"]}
        sources = {name: file["sourceList"][name][:] for name in file["sourceList"]}
        ragged = {name: list(file["timeSeries"][name][:]) for name in file["timeSeries"]}
    pixel = int(path.stem.rpartition("_")[2])
    rng = np.random.default_rng([seed, pixel, 7])
    names = [(v.decode() if isinstance(v, bytes) else v).strip() for v in catalogue.pop("filter").tolist()]
    order = np.argsort(catalogue["catindexid"])
    n = len(sources["sourceid"])

    def flat(name: str) -> Array:
        return np.concatenate(ragged[name]) if n else np.empty(0, np.int64)

    def row(name: str) -> Array:
        ids = flat(name)
        return np.asarray(order[np.searchsorted(catalogue["catindexid"], ids, sorter=order)])

    band = np.array([BANDS.index(name) for name in names], np.int64)
    detected, covered = row("catindexid"), row("catindexidcovered")
    source = np.repeat(np.arange(n), [len(one) for one in ragged["catindexid"]])
    of_covered = np.repeat(np.arange(n), [len(one) for one in ragged["catindexidcovered"]])
    # Tiles number their pawprints each for itself, the release all of them.
    catid = pixel * 100_000 + catalogue["catindexid"].astype(np.int64)
    flags = np.where(rng.random(len(source)) < SHARE_FLAGGED, rng.integers(1, 4, len(source)), 0)
    lightcurves = pa.table(
        {
            "sourceid": sources["sourceid"][source],
            "mjdobs": catalogue["mjdobs"][detected],
            "filter": pa.array(names, pa.string()).take(pa.array(detected)),
            "mag": flat("hfad_mag").astype("f4"),
            "emag": flat("hfad_emag").astype("f4"),
            "phot_flag": flags.astype("i2"),
            "ambiguous_match": flat("ambiguous_match").astype("i2"),
            "ast_res_chisq": pa.array(flat("ast_res_chisq").astype("f4"), from_pandas=True),
            "objtype": flat("objtype").astype("i2"),
            "catid": catid[detected],
            "chi": flat("chi").astype("f4"),
        }
    )
    used = (flags == 0) & (flat("ambiguous_match") == 0) & (flat("ast_res_chisq") < 28.74)
    counts = {
        "n_obs": np.bincount(5 * of_covered + band[covered], minlength=5 * n),
        "n_det": np.bincount(5 * source + band[detected], minlength=5 * n),
        "n_amb": np.bincount((5 * source + band[detected])[flat("ambiguous_match") != 0], minlength=5 * n),
        "n_epochs": np.bincount((5 * source + band[detected])[used], minlength=5 * n),
    }
    obs = {name: _texts(values) for name, values in catalogue.items() if name != "catindexid"}
    return {
        f"{PREFIX}SOURCES": _sources(sources, counts),
        f"{PREFIX}LC": lightcurves,
        f"{PREFIX}OBS": pa.table({"catid": catid, "filter": pa.array(names, pa.string()), **obs}),
    }


def _sources(found: dict[str, Array], counts: dict[str, Array]) -> pa.Table:
    n = len(found["sourceid"])
    # Two parameters are the position: of such a source the release has no motion and no parallax.
    still = found["astfit_params"] != 5
    renamed = {
        "sourceid": "sourceid",
        "ra": "ra",
        "de": "dec",
        "ra_error": "ra_error",
        "de_error": "dec_error",
        "chisq": "chisq",
        "uwe": "uwe",
    }
    moving = {
        "parallax": "parallax",
        "parallax_error": "parallax_error",
        "pmra": "pmra",
        "pmra_error": "pmra_error",
        "pmde": "pmdec",
        "pmde_error": "pmdec_error",
    }
    columns: dict[str, Any] = {mine: found[theirs] for mine, theirs in renamed.items()}
    columns |= {mine: pa.array(found[theirs], mask=still) for mine, theirs in moving.items()}
    columns |= {
        name: pa.array(np.zeros(n, "f4"), mask=still)
        for name in ("parallax_pmra_corr", "parallax_pmdec_corr", "pmra_pmdec_corr")
    }
    columns |= {
        "ref_epoch": np.full(n, REF_EPOCH),
        "astfit_epochs": counts["n_det"].reshape(n, 5).sum(axis=1).astype("i4"),
        "astfit_params": found["astfit_params"].astype("i2"),
        "duplicate": found["duplicate"].astype("i2"),
    }
    for place, name in enumerate(band.lower() for band in BANDS):
        columns |= {
            f"phot_{name}_mean_mag": pa.array(found[f"{name}_mean_mag"], from_pandas=True),
            f"phot_{name}_std_mag": pa.array(found[f"{name}_std_mag"], from_pandas=True),
            f"phot_{name}_n_epochs": counts["n_epochs"][place::5].astype("i4"),
            **{f"{name}_{what}": counts[what][place::5].astype("i4") for what in ("n_obs", "n_det", "n_amb")},
        }
    columns["ks_mad"] = pa.array(found["ks_mad_mag"], from_pandas=True)
    columns["ks_med_err"] = pa.array(found["ks_ivw_err_mag"], from_pandas=True)
    return pa.table(columns)


def _texts(values: Array) -> pa.Array:
    return pa.array([value.decode() for value in values.tolist()] if values.dtype.kind == "S" else values)
