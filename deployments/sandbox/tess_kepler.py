"""Stand-in for MAST where it keeps light curves of TESS, Kepler and K2: the portal, its TAP service, and downloads.

Services, columns, dataURIs and the look of values are the portal's; stars and light curves are random. A file is made
when it is first needed. Downloads have byte ranges and validators. What astroquery asks for columns is answered, too.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from deployments.sandbox.hcv import distance_deg
from deployments.sandbox.mast_caom import CaomService
from deployments.sandbox.mast_stars import FIRST_DAY, KINDS, Star, Targets, number, stars
from deployments.sandbox.server import Request, Response

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Floats = NDArray[np.float64]
Row = dict[str, Any]

INVOKE, DOWNLOAD = "/api/v0/invoke", "/api/v0.1/Download/file"
COLUMNS_CONFIG = "/portal/Mashup/Mashup.asmx/columnsconfig"
FULL_CADENCES = 2_000
"""Cadences of a file at scale 1: a tenth of SPOC's."""
MOST_ROWS = 50_000

_NUMERIC = {"s_ra", "s_dec", "t_min", "t_max", "t_exptime", "em_min", "em_max", "t_obs_release"}


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets) -> str:
    """Serve MAST, with files below `root`, and return the endpoint.

    The service, with its settings for tests, is ``sandbox.services["tess_kepler"]``.
    """
    service = Service(sandbox, root / "mast", seed=seed, n=max(40, round(FULL_CADENCES * scale)))
    sandbox.services["tess_kepler"] = service
    for star in stars(targets, seed=seed, n=service.n):
        service.add(star)
    return service.url


class Service:
    """MAST's portal, and its downloads.

    Attributes
    ----------
    n : int
        Cadences of a file.
    page_rows : int
        The most rows of a page.
    executing : int
        How often a search is answered with status EXECUTING before it is through.
    message : tuple[str, str] | None
        Status and msg instead of any answer.
    lost_rows : int
        Rows at the end of an answer that are counted, but do not come.
    asked : list[tuple[str, dict]]
        Service and parameters of each request, those that were answered with EXECUTING once.
    caom : CaomService
        The TAP service on the same observations.
    """

    def __init__(self, box: Sandbox, folder: Path, *, seed: int, n: int) -> None:
        self.url, self._folder, self._seed, self.n = box.url("").rstrip("/"), folder, seed, n
        self.page_rows, self.executing, self.lost_rows = MOST_ROWS, 0, 0
        self.message: tuple[str, str] | None = None
        self.asked: list[tuple[str, Row]] = []
        self._stars: dict[str, Star] = {}
        self._waiting: dict[str, int] = {}
        box.mount(INVOKE, self._invoke)
        box.mount(DOWNLOAD, self._download)
        box.mount(COLUMNS_CONFIG, self._columns)
        self.caom = CaomService(box, self._observations, self._files)

    def close(self) -> None:
        """Close the tables of the TAP service."""
        self.caom.close()

    def add(self, star: Star) -> None:
        """Have one more file; one of the same dataURI is replaced."""
        self._stars[star.uri] = star
        self._path(star).unlink(missing_ok=True)

    def add_file(self, data: bytes | Path, name: str, kind: str) -> Star:
        """Have a file as it is, such as a real one: its target, sequence and position are those of its headers."""
        body = data if isinstance(data, bytes) else data.read_bytes()
        head = fits.getheader(io.BytesIO(body))
        number = next(head[key] for key in ("TICID", "KEPLERID") if key in head)
        sequence = next(head[key] for key in ("SECTOR", "QUARTER", "CAMPAIGN") if key in head)
        star = Star(kind, number, sequence, (head["RA_OBJ"], head["DEC_OBJ"]), name, lambda: body)
        self.add(star)
        return star

    def remove(self, star: Star) -> None:
        """Have a file no more."""
        self._stars.pop(star.uri)

    def _path(self, star: Star) -> Path:
        """Where a file is on disk: made the first time."""
        return self._folder / f"{star.uri.removeprefix('mast:')}.{self._seed}-{self.n}"

    def _made(self, star: Star) -> Path:
        path = self._path(star)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(star.make())
        return path

    def _observations(self) -> list[Row]:
        """Rows of all observations, in an order that says nothing."""
        rows: dict[str, Row] = {}
        for star in self._stars.values():
            author, collection, exposure_s, _ = KINDS[star.kind]
            first, step = FIRST_DAY[star.mission]
            zero = 56999.5 if star.mission == "TESS" else 54832.5
            start = zero + first + step * (star.sequence - 1)
            ra, dec = star.place
            rows[star.obs_id] = {
                "intentType": "science",
                "obs_collection": collection,
                "provenance_name": author,
                "instrument_name": "Photometer" if star.mission == "TESS" else star.mission,
                "project": star.mission,
                "filters": "TESS" if star.mission == "TESS" else "KEPLER",
                "wavelength_region": "Optical",
                "target_name": star.target_name,
                "target_classification": None,
                "obs_id": star.obs_id,
                "s_ra": ra,
                "s_dec": dec,
                "dataproduct_type": "timeseries",
                "proposal_pi": None,
                "calib_level": 3,
                "t_min": start,
                "t_max": start + 0.9 * step,
                "t_exptime": exposure_s,
                "em_min": 600.0,
                "em_max": 1000.0,
                "obs_title": None,
                "t_obs_release": start + 60.0,
                "proposal_id": None,
                "sequence_number": None if star.mission == "Kepler" else star.sequence,
                "s_region": f"CIRCLE {ra} {dec} 0.00138889",
                "jpegURL": None,
                "dataURL": star.uri,
                "dataRights": "PUBLIC",
                "mtFlag": False,
                "srcDen": None,
                "obsid": str(number(star.obs_id)),
                "objID": str(10**10 + number(star.obs_id)),
            }
        return [rows[name] for name in sorted(rows, key=number)]

    def _invoke(self, request: Request) -> Response:
        form, _ = request.form()
        try:
            asked = json.loads(form["REQUEST"])
            service, params = asked["service"], asked["params"]
        except (KeyError, TypeError, ValueError):
            return Response(b'{"status": "ERROR", "msg": "the request is no JSON"}', 200, "application/json")
        left = self._waiting.setdefault(json.dumps(asked), self.executing)
        if left:
            self._waiting[json.dumps(asked)] -= 1
            return _json({"status": "EXECUTING", "msg": "", "percent complete": 0.5})
        self.asked.append((service, params))
        if self.message is not None:
            return _json({"status": self.message[0], "msg": self.message[1]})
        try:
            rows = self._rows(service, params, asked.get("data"))
        except (KeyError, TypeError, ValueError) as error:
            return _json({"status": "ERROR", "msg": f"Error running query: {error!r}"})
        size = min(int(asked.get("pagesize", 1000)), self.page_rows)
        page = int(asked.get("page", 1))
        shown = rows[: len(rows) - self.lost_rows][(page - 1) * size : page * size]
        columns = {name: value for row in rows for name, value in row.items()}
        fields = [{"name": name, "type": _type(name, value)} for name, value in columns.items()]
        paging = {
            "page": page,
            "pageSize": size,
            "pagesFiltered": max(-(-len(rows) // size), 1),
            "rows": len(shown),
            "rowsFiltered": len(rows),
            "rowsTotal": len(rows),
        }
        return _json({"status": "COMPLETE", "msg": "", "data": shown, "fields": fields, "paging": paging})

    def _rows(self, service: str, params: Row, data: Any) -> list[Row]:
        observations = self._observations()
        if service == "Mast.Caom.Filtered":
            return _filtered(observations, params["filters"])
        if service == "Mast.Caom.Filtered.Position":
            ra, dec, radius = (float(part) for part in params["position"].split(","))
            return _filtered(_near(observations, ra, dec, radius), params["filters"])
        if service == "Mast.Caom.Crossmatch":
            places = [(float(row[params["raColumn"]]), float(row[params["decColumn"]])) for row in data["data"]]
            near = (_around(observations, ra, dec, float(params["radius"])) for ra, dec in places)
            return list({row["obsid"]: row for rows in near for row in rows}.values())
        if service == "Mast.Caom.Products":
            wanted = {row["obs_id"]: row for row in observations if row["obsid"] in str(params["obsid"]).split(",")}
            return [
                row
                for star in self._stars.values()
                if star.obs_id in wanted
                for row in self._products(star, wanted[star.obs_id]["obsid"])
            ]
        raise ValueError(f"no service {service}")

    def _files(self, names: Collection[str] | None) -> list[Row]:
        """Rows of the files of some targets, by their names, or of all."""
        obsids = {row["obs_id"]: row["obsid"] for row in self._observations()}
        stars = [star for star in self._stars.values() if names is None or star.target_name in names]
        return [row for star in stars for row in self._products(star, obsids[star.obs_id])]

    def _products(self, star: Star, obsid: str) -> list[Row]:
        """Rows of a file, and of others that come with it."""
        author, collection, _, _ = KINDS[star.kind]
        pixels = re.sub(r"_?(fast-)?[ls]?lc\.fits$", "_tp.fits", star.uri)
        kinds = (
            (star.uri, "Light curves", "LC", star.size or self._made(star).stat().st_size),
            (pixels, "Target pixel files", "TP", 9),
        )
        return [
            {
                "obsID": obsid,
                "obs_collection": collection,
                "dataproduct_type": "timeseries",
                "obs_id": star.obs_id,
                "description": f"{description} - Q{star.sequence}" if star.mission == "Kepler" else description,
                "type": "S",
                "dataURI": uri,
                "productType": "SCIENCE",
                "productGroupDescription": None,
                "productSubGroupDescription": group,
                "productDocumentationURL": None,
                "project": author,
                "prvversion": None,
                "proposal_id": None,
                "productFilename": uri.rsplit("/", 1)[-1],
                "size": size,
                "parent_obsid": obsid,
                "dataRights": "PUBLIC",
                "calib_level": 3,
            }
            for uri, description, group, size in kinds
        ]

    def _download(self, request: Request) -> Response:
        form, _ = request.form()
        star = self._stars.get(form.get("URI", ""))
        if star is None:
            return Response(b"Requested file does not exist or access is denied.\n", 404, "text/plain")
        return Response(self._made(star), 200, "application/fits")

    def _columns(self, request: Request) -> Response:
        """Tell what kind each column is of, by which astroquery makes filters."""
        names = self._observations()[:1] or [{}]
        kinds = {name: "double" if name in _NUMERIC else "char" for name in names[0]}
        return _json({name: {"text": name, "vot.datatype": kind} for name, kind in kinds.items()})


def _near(rows: list[Row], ra: float, dec: float, radius_deg: float) -> list[Row]:
    places = np.array([(row["s_ra"], row["s_dec"]) for row in rows], np.float64).reshape(-1, 2)
    # Regions of targets have a radius of five arcseconds.
    near = distance_deg(ra, dec, places[:, 0], places[:, 1]) <= radius_deg + 5 / 3600
    return [row for row, is_near in zip(rows, near.tolist(), strict=True) if is_near]


def _around(rows: list[Row], ra: float, dec: float, radius_deg: float) -> list[Row]:
    """Rows near a place, and what else MAST has there: images whose centre is elsewhere."""
    image = {
        "obs_collection": "TESS",
        "provenance_name": "SPOC",
        "project": "TESS",
        "dataproduct_type": "image",
        "target_name": "TESS FFI",
        "obs_id": f"tess-s0001-1-1-{ra:.0f}",
        "obsid": str(int(ra)),
        "s_ra": ra,
        "s_dec": max(dec - 5.0, -90.0),
    }
    return [image, *_near(rows, ra, dec, radius_deg)]


def _filtered(rows: list[Row], filters: list[Row]) -> list[Row]:
    """Rows that fulfil all filters: one of the values, or in one of the ranges, or like the free text."""
    for one in filters:
        name, values = one["paramName"], one["values"]
        like = re.escape(str(one.get("freeText", ""))).replace("%", ".*")
        discrete = {str(value).lower() for value in values if not isinstance(value, dict)}
        ranges = [(value["min"], value["max"]) for value in values if isinstance(value, dict)]
        rows = [
            row
            for row in rows
            if str(row[name]).lower() in discrete
            or (ranges and row[name] is not None and any(low <= row[name] <= high for low, high in ranges))
            or (like and re.fullmatch(like, str(row[name]), re.IGNORECASE))
        ]
    return rows


def _type(name: str, value: Any) -> str:
    return (
        "float" if name in _NUMERIC else "boolean" if value is False else "int" if isinstance(value, int) else "string"
    )


def _json(answer: Row) -> Response:
    return Response(json.dumps(answer).encode(), 200, "application/json")
