"""Stand-in for the Hubble Catalog of Variables at MAST: the REST service's tables hcvsummary and hcv.

Addresses, parameters, columns and the look of values are those of the service; sources and light curves are random. A
source's light curves depend on its MatchID and the seed only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployments.sandbox.gaia import _normal as normal
from deployments.sandbox.gaia import _uniform as uniform
from deployments.sandbox.heasarc import offset
from deployments.sandbox.server import Request, Response
from deployments.sandbox.ztf import keys

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Targets = Sequence[tuple[float, float]]
Row = dict[str, Any]

URL_PATH = "/api/v0.1/hsc/v3"
FIELD_SOURCES = 84_428
"""Sources away from targets at scale 1: as many as there are variables in the catalogue."""
PAGE_ROWS = 5_000
MOST_RADIUS_DEG = 0.5

_FILTERS = ("ACS_F814W", "ACS_F606W", "ACS_F475W", "WFC3_F160W", "WFC3_F814W", "WFPC2_F814W", "WFPC2_F606W")
_TYPES = {
    "MatchID": "long",
    "GroupID": "int",
    "SubGroupID": "int",
    "RA": "float",
    "Dec": "float",
    "AutoClass": "int",
    "ExpertClass": "int",
    "FilterDetFlag": "int",
    "NumLC": "int",
    "MeanMag": "float",
    "MeanCorrMag": "float",
    "MAD": "float",
    "Chi2": "float",
    "MJD": "float",
    "Mag": "float",
    "CorrMag": "float",
    "MagErr": "float",
    "CI": "float",
    "D": "float",
    "Filter": "string",
    "VarQualFlag": "string",
    "ImageName": "string",
}
COLUMNS = {
    "hcvsummary": (
        "MatchID",
        "Filter",
        "GroupID",
        "SubGroupID",
        "RA",
        "Dec",
        "AutoClass",
        "ExpertClass",
        "VarQualFlag",
        "FilterDetFlag",
        "NumLC",
        "MeanMag",
        "MeanCorrMag",
        "MAD",
        "Chi2",
    ),
    "hcv": ("MatchID", "Filter", "MJD", "ImageName", "Mag", "CorrMag", "MagErr", "CI", "D"),
}


# MJD of the first and last images that the catalogue may have of each camera.
_CAMERAS = {"wfpc2": (49_400, 54_900), "acs": (52_400, 57_400), "wfc3": (55_100, 57_400)}


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Serve the tables, and return the endpoint. `root` stays empty: light curves are made when they are asked for.

    The service, with its settings for tests, is ``sandbox.services["hcv"]``.
    """
    service = Service(sandbox, URL_PATH, targets, seed=seed, n_field=round(FIELD_SOURCES * scale))
    sandbox.services["hcv"] = service
    return service.url


class Service:
    """The service of one release, for the two tables of variables.

    Attributes
    ----------
    ids, ra, dec : numpy.ndarray
        MatchID and position (deg) of every source, in the order in which they are answered.
    page_rows : int
        Rows of a page, unless another number is asked for, and the most that there are.
    one_page : bool
        Whether every page asked for is the first.
    forget : set[int]
        Sources without light curves, though the summary has them.
    """

    def __init__(self, box: Sandbox, path: str, targets: Targets, *, seed: int, n_field: int) -> None:
        self.url, self._path, self._seed = box.url(path), path, seed
        self.page_rows, self.one_page, self.forget = PAGE_ROWS, False, set[int]()
        self.ids, self.ra, self.dec = positions(targets, seed=seed, n_field=n_field)
        box.mount(path, self._handle)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def summary(self, place: int) -> list[Row]:
        """Rows of table hcvsummary for a source, by its place: one a filter."""
        number = int(self.ids[place])
        curves = light_curves(number, self._seed)
        names = list(dict.fromkeys(row["Filter"] for row in curves))
        key = keys(np.array([number]), self._seed ^ 0x5A)
        rows = []
        for draw, name in enumerate(names):
            mags = [[row[kind] for row in curves if row["Filter"] == name] for kind in ("Mag", "CorrMag")]
            known = [[mag for mag in kind if mag is not None] for kind in mags]
            median = float(np.median(known[1]))
            letters = "".join("ABC"[int(3 * uniform(key, 40 + 5 * draw + n)[0] ** 2)] for n in range(5))
            detected = int(draw == 0 or uniform(key, 80 + draw)[0] < 0.4)
            rows.append(
                {
                    "MatchID": number,
                    "Filter": name,
                    "GroupID": 1_000 + number % 90_000,
                    "SubGroupID": -5,
                    "RA": float(self.ra[place]),
                    "Dec": float(self.dec[place]),
                    "AutoClass": min(len(names), 2),
                    "ExpertClass": (0, 1, 2, 4)[int(4 * uniform(key, 1)[0])],
                    "VarQualFlag": letters if detected else "-----",
                    "FilterDetFlag": detected,
                    "NumLC": len(mags[0]),
                    "MeanMag": float(np.mean(known[0])),
                    "MeanCorrMag": float(np.mean(known[1])),
                    "MAD": float(np.median(np.abs(np.array(known[1]) - median))),
                    "Chi2": 30 * uniform(key, 2)[0],
                }
            )
        return rows

    def _handle(self, request: Request) -> Response:
        name, _, kind = request.path.removeprefix(self._path).strip("/").partition(".")
        if name.endswith("/metadata") and (table := name.removesuffix("/metadata")) in COLUMNS:
            described = [{"name": one, "type": _TYPES[one], "description": one} for one in COLUMNS[table]]
            return Response(json.dumps(described).encode(), 200, "application/json")
        if name not in COLUMNS or kind not in ("", "json", "csv"):
            return Response(b'{"error": "not found"}\n', 404, "application/json")
        params, _ = request.form()
        try:
            rows = self._rows(name, params)
            size = min(int(params.get("PAGESIZE", self.page_rows)), self.page_rows)
            page = 1 if self.one_page else int(params.get("PAGE", 1))
            if size < 1 or page < 1:
                raise ValueError("pagesize and page must be at least 1")
            wanted = [one.strip().lower() for one in params.get("COLUMNS", "").strip("[]").split(",") if one.strip()]
            columns = [one for one in COLUMNS[name] if not wanted or one.lower() in wanted]
            if set(wanted) - {one.lower() for one in columns}:
                raise ValueError(f"columns of {name} are {', '.join(COLUMNS[name])}")
        except ValueError as error:
            return Response(json.dumps({"error": str(error)}).encode(), 400, "application/json")
        shown = [[row[one] for one in columns] for row in rows[(page - 1) * size : page * size]]
        if kind == "csv":
            return Response(_csv(columns, shown), 200, "text/csv")
        answer = {"info": [{"name": one, "type": _TYPES[one]} for one in columns], "data": shown}
        return Response(json.dumps(answer).encode(), 200, "application/json")

    def _rows(self, table: str, params: dict[str, str]) -> list[Row]:
        """Rows of a table that fulfil the conditions, in the order of MatchID."""
        chosen = np.arange(len(self.ids))
        conditions = {name for name in ("MATCHID", "FILTER", "RA") if name in params}
        if not conditions or (table == "hcv" and "MATCHID" not in conditions):
            raise ValueError("a search needs a position, or a MatchID")
        if "RA" in params:
            ra, dec, radius = (float(params.get(name, "nan")) for name in ("RA", "DEC", "RADIUS"))
            if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 <= radius <= MOST_RADIUS_DEG):
                raise ValueError("ra must be of 0 to 360, dec of -90 to 90, radius of 0 to 0.5 degrees")
            chosen = chosen[distance_deg(ra, dec, self.ra, self.dec) <= radius]
        if "MATCHID" in params:
            chosen = chosen[self.ids[chosen] == int(params["MATCHID"])]
        if table == "hcvsummary":
            rows = [row for place in chosen.tolist() for row in self.summary(place)]
        else:
            numbers = set(self.ids[chosen].tolist()) - self.forget
            rows = [row for number in sorted(numbers) for row in light_curves(number, self._seed)]
        return [row for row in rows if params.get("FILTER", row["Filter"]) == row["Filter"]]


def positions(targets: Targets, *, seed: int, n_field: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """MatchID and position of every source, in the order of MatchID, which says nothing of distances.

    Parameters
    ----------
    targets
        Positions (right ascension, declination, deg). Each has a source within 0.8 arcsec; every second or so has
        another one, up to 1.2 arcsec off.
    seed, n_field
        Seed of everything random, and the number of sources away from targets.
    """
    places = np.asarray(targets, dtype=np.float64).reshape(-1, 2)
    second = places[uniform(keys(np.arange(len(places)), seed ^ 0x4C), 1) < 0.5]
    near = np.concatenate([places, second])
    key = keys(np.arange(len(near) + n_field), seed ^ 0x48)
    far = np.repeat([0.8, 1.2], [len(places), len(second)])
    at = offset(near, far * uniform(key[: len(near)], 1) / 3600, 360 * uniform(key[: len(near)], 2))
    field = key[len(near) :]
    sky = 360 * uniform(field, 1), np.degrees(np.arcsin(2 * uniform(field, 2) - 1))
    ra, dec = (np.concatenate(parts) for parts in zip(at, sky, strict=True))
    # The last digits make the numbers distinct.
    ids = (1000 * uniform(key, 3)).astype(np.int64) * 1_000_000 + np.arange(len(key)) + 1
    order = np.argsort(ids)
    return ids[order], ra[order], dec[order]


def light_curves(match_id: int, seed: int) -> list[Row]:
    """Rows of table hcv for a source: one to three filters with 5 to 30 points each, sorted by filter and time."""
    one = keys(np.array([match_id]), seed ^ 0xC5)
    first = int(len(_FILTERS) * uniform(one, 1)[0])
    names = sorted(_FILTERS[(first + 2 * n) % len(_FILTERS)] for n in range(1 + int(3 * uniform(one, 2)[0])))
    rows = []
    for number, name in enumerate(names):
        n = 5 + int(26 * uniform(one, 10 + number)[0])
        key = keys(np.arange(n) + 1000 * number, (seed ^ match_id) & 0x7FFFFFFF)
        camera, short = name.lower().split("_")
        installed, last = _CAMERAS[camera]
        mjd = np.sort(installed + (last - installed) * uniform(key, 1))
        error = np.round(0.01 + 0.15 * uniform(key, 2) ** 2, 4)
        mag = 20 + 6 * uniform(one, 20 + number)[0] + 0.3 * np.sin(mjd / 50) + error * normal(key, 3)
        corrected = mag + 0.01 * normal(key, 5)
        missing, wrong = uniform(key, 7) < 0.02, uniform(key, 8) < 0.02
        missing[0] = False
        rows += [
            {
                "MatchID": match_id,
                "Filter": name,
                "MJD": float(mjd[i]),
                "ImageName": f"hst_{10_000 + match_id % 5_000}_{i:02d}_{camera}_{short}",
                "Mag": None if missing[i] else round(float(mag[i]), 4),
                "CorrMag": None if missing[i] else float(corrected[i]),
                "MagErr": None if wrong[i] else float(error[i]),
                "CI": 0.8 + 0.5 * float(uniform(key, 9)[i]),
                "D": 15 * float(uniform(key, 10)[i]),
            }
            for i in range(n)
        ]
    return rows


def distance_deg(ra: float, dec: float, other_ra: Floats, other_dec: Floats) -> Floats:
    """Distances on the sphere in degrees, by the haversine."""
    lat, other_lat = np.radians(dec), np.radians(other_dec)
    half = np.sin((other_lat - lat) / 2) ** 2
    half += np.cos(lat) * np.cos(other_lat) * np.sin(np.radians(other_ra - ra) / 2) ** 2
    return np.asarray(2 * np.degrees(np.arcsin(np.sqrt(half))))


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a table as CSV; without rows there is not even a header."""
    if not rows:
        return b""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue().encode()
