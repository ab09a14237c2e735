"""Stand-in for MAST's missions API with exposures of COS and STIS in TIME-TAG mode: search, products, files, columns.

Paths, parameters, conditions and the look of answers are those that astroquery.mast.MastMissions 0.4.11 speaks to.
Files are made when they are first listed or fetched. Names are resolved by the stand-in for SIMBAD beside it.
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import numpy as np

from deployments.sandbox import simbad
from deployments.sandbox.hcv import distance_deg
from deployments.sandbox.hst_datasets import MJD_0, Dataset, File, Targets, files, of_targets, special
from deployments.sandbox.hst_events import Exposure
from deployments.sandbox.server import Request, Response

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

Row = dict[str, Any]

API, COLUMNS = "/search/hst/api/v0.1", "/search/util/api/v0.1/column_list"
FULL_LENGTH_S = 1_200.0
"""Length of an exposure at scale 1: half an orbit."""
MOST_ROWS = 50_000

# Of the service's columns those that mean something here, with their types.
_COLUMNS = {
    "sci_data_set_name": "string",
    "sci_targname": "string",
    "sci_instrume": "string",
    "sci_aper_1234": "string",
    "sci_spec_1234": "string",
    "sci_actual_duration": "float",
    "sci_start_time": "datetime",
    "sci_stop_time": "datetime",
    "sci_pep_id": "integer",
    "sci_ra": "ra",
    "sci_dec": "dec",
    "sci_asn_id": "string",
    "sci_expflag": "string",
    "sci_instrument_config": "string",
    "sci_operating_mode": "string",
    "sci_central_wavelength": "float",
    "sci_mtflag": "string",
    "sci_release_date": "datetime",
    "sci_generation_date": "datetime",
    "sci_aec": "string",
    "sci_obs_type": "string",
    "sci_status": "string",
    "sci_target_descrip": "substring",
}
_TYPES = {"float": "FLOAT", "ra": "FLOAT", "dec": "FLOAT", "integer": "INTEGER", "datetime": "DATETIME"}
_UNITS_PER_DEG = {"arcseconds": 3600.0, "arcminutes": 60.0, "degrees": 1.0}
_FAR_OFF = datetime(2999, 1, 1, tzinfo=UTC)


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Targets = ()) -> str:
    """Serve the archive, with files below `root`, and return the endpoint.

    The service, with its settings for tests, is ``sandbox.services["hst"]``. The endpoint of the names is
    ``sandbox.endpoints["simbad"]``. A target has an association, of which kind goes by turns; what else there is does
    not depend on targets: see `special`.
    """
    service = Service(sandbox, root / "hst")
    sandbox.services["hst"] = service
    length_s = max(40.0, FULL_LENGTH_S * scale)
    for dataset in (
        *of_targets(targets, seed=seed, length_s=length_s),
        *special(seed=seed, length_s=length_s).values(),
    ):
        service.add(dataset)
    names = simbad.mount(sandbox, [one.target for dataset in service.datasets.values() for one in dataset.science])
    sandbox.services["simbad"], sandbox.endpoints["simbad"] = names, names.url
    return service.url


class Service:
    """MAST's missions API for HST.

    Attributes
    ----------
    datasets : dict[str, Dataset]
        What there is, by name; change it by `add`, `remove` and `recalibrate`.
    by_exposure : bool
        List the exposures of associations each by itself, with the association's name beside it.
    lower_suffixes : bool
        Write suffixes of products in small letters.
    most_rows : int
        Rows after which an answer is cut, in silence.
    lost_rows : int
        Rows at the end of an answer that are counted, but do not come.
    asked : list[tuple[str, dict]]
        What was asked for, and the parameters: "search", "post_list_products", "retrieve_product", "column_list".
    """

    def __init__(self, box: Sandbox, folder: Path) -> None:
        self.url, self._folder = box.url("").rstrip("/"), folder
        self.by_exposure, self.lower_suffixes, self.most_rows, self.lost_rows = False, False, MOST_ROWS, 0
        self.datasets: dict[str, Dataset] = {}
        self.asked: list[tuple[str, Row]] = []
        self._random = random.Random(1)  # noqa: S311
        box.mount(f"{API}/search", self._search)
        box.mount(f"{API}/post_list_products", self._products)
        box.mount(f"{API}/retrieve_product", self._retrieve)
        box.mount(COLUMNS, self._columns)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def add(self, dataset: Dataset) -> Dataset:
        """Have a dataset, instead of one of the same name."""
        self.datasets[dataset.name] = dataset
        return dataset

    def remove(self, name: str) -> None:
        """Have a dataset no more."""
        del self.datasets[name]

    def recalibrate(self, name: str, calibration: str = "3.6.0 (2026-01-12)") -> Dataset:
        """Let another version of the calibration make the files of a dataset anew: weights of events change."""
        old = self.datasets[name]
        exposures = tuple(replace(one, calibration=calibration) for one in old.exposures)
        return self.add(replace(old, exposures=exposures, generated=old.generated + timedelta(days=900)))

    def path(self, dataset: Dataset, file: File) -> Path:
        """Return where a file is on disk, made the first time."""
        path = self._folder / dataset.name / f"{file.key}-{file.name}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under its own name, which is in its header, in a folder of this thread's own.
            here = path.parent / f"{os.getpid()}-{threading.get_ident()}"
            here.mkdir(exist_ok=True)
            file.make(here / file.name)
            (here / file.name).replace(path)
            here.rmdir()
        return path

    def _rows(self) -> list[Row]:
        rows = []
        for dataset in self.datasets.values():
            if self.by_exposure:
                rows += [_row(dataset, (one,), one.rootname) for one in dataset.exposures]
            else:
                rows.append(_row(dataset, dataset.science, dataset.name))
        return rows

    def _search(self, request: Request) -> Response:
        try:
            asked = json.loads(request.body)
            self.asked.append(("search", asked))
            rows = [
                row
                for row in self._rows()
                if all(_fulfils(row[k], v) for c in asked["conditions"] for k, v in c.items())
            ]
            rows = _near(rows, asked) if asked.get("target") else rows
            # Without an order to go by, pages have any.
            self._random.shuffle(rows)
            directions = asked.get("sort_desc") or []
            for place, name in reversed(list(enumerate(asked.get("sort_by") or []))):
                down = bool(directions[place]) if place < len(directions) else False
                rows.sort(key=lambda row: (row[name] is not None, row[name]), reverse=down)
            offset, limit = int(asked.get("offset") or 0), min(int(asked.get("limit") or 5000), self.most_rows)
        except (KeyError, TypeError, ValueError) as error:
            return _json({"message": f"invalid request: {error!r}"}, 400)
        total = len(rows)
        rows = rows[: total - self.lost_rows][offset : offset + limit]
        columns = list(dict.fromkeys(asked.get("select_cols") or list(_COLUMNS)[:12]))
        of_place = ["search_key", "search_pos", "ang_sep"] if asked.get("target") else []
        if unknown := set(columns) - {*_COLUMNS, *of_place}:
            return _json({"message": f"no columns {sorted(unknown)}"}, 400)
        # Rows have what `info` does not name, as they do at the archive.
        kinds = {**_COLUMNS, "ang_sep": "float"}
        info = [
            {"name": name, "type": _TYPES.get(kinds.get(name, ""), "VARCHAR")} for name in [*columns, *of_place[:1]]
        ]
        shown = [{name: row[name] for name in (*columns, *of_place)} for row in rows]
        return _json({"messages": [], "info": info, "search_params": asked, "totalResults": total, "results": shown})

    def _products(self, request: Request) -> Response:
        asked = json.loads(request.body)
        self.asked.append(("post_list_products", asked))
        products = []
        for name in asked.get("dataset_ids", []):
            for dataset, chosen in self._named(name.lower()):
                products += [self._product(dataset, name.upper(), file) for file in files(dataset, chosen)]
        return _json({"products": products})

    def _named(self, name: str) -> Iterator[tuple[Dataset, tuple[Exposure, ...]]]:
        """Yield a dataset, or that of which an exposure is a member, and the exposures that are meant."""
        if name in self.datasets:
            yield self.datasets[name], self.datasets[name].exposures
            return
        for dataset in self.datasets.values():
            if chosen := tuple(one for one in dataset.exposures if one.rootname == name):
                yield dataset, chosen

    def _product(self, dataset: Dataset, name: str, file: File) -> Row:
        of = dataset.exposures[0].of
        return {
            "product_key": f"{name}_{file.name}",
            "access": "PUBLIC" if dataset.is_public else "PROPRIETARY",
            "dataset": name,
            "instrument_name": f"{of.instrument:<6}",
            "filters": of.grating,
            "filename": file.name,
            "uri": f"{name}/{file.name}",
            "authz_primary_identifier": name,
            "authz_secondary_identifier": "CAL",
            "file_suffix": file.suffix.lower() if self.lower_suffixes else file.suffix,
            "category": "CALIBRATED" if file.suffix not in ("ASN", "JIT", "SPT") else "AUX",
            "size": self.path(dataset, file).stat().st_size,
            "type": "science",
        }

    def _retrieve(self, request: Request) -> Response:
        uri = parse_qs(request.query).get("product_name", [""])[0]
        self.asked.append(("retrieve_product", {"product_name": uri}))
        name, _, wanted = uri.partition("/")
        for dataset, chosen in self._named(name.lower()):
            if not dataset.is_public:
                return _json({"message": f"access to {uri} is denied"}, 401)
            for file in files(dataset, chosen):
                if file.name == wanted:
                    return Response(self.path(dataset, file), 200, "application/fits")
        return _json({"message": f"there is no {uri}"}, 404)

    def _columns(self, request: Request) -> Response:
        self.asked.append(("column_list", {"mission": parse_qs(request.query).get("mission", [""])[0]}))
        return _json(
            [
                {"column_name": name, "qual_type": kind, "description": name.removeprefix("sci_").replace("_", " ")}
                for name, kind in (*_COLUMNS.items(), ("ang_sep", "float"), ("search_pos", "string"))
            ]
        )


def _row(dataset: Dataset, exposures: Sequence[Exposure], name: str) -> Row:
    one, last = exposures[0], exposures[-1]
    of = one.of
    start = MJD_0 + timedelta(days=one.start_mjd)
    stop = MJD_0 + timedelta(days=last.start_mjd + last.length_s / 86_400)
    broken = next((each.broken for each in exposures if each.broken == "expflag"), None)
    return {
        "sci_data_set_name": name.upper(),
        "sci_targname": one.target,
        "sci_instrume": f"{of.instrument:<6}",
        "sci_aper_1234": of.aperture,
        "sci_spec_1234": of.grating,
        "sci_actual_duration": sum(each.exposure_s for each in exposures),
        "sci_start_time": _iso(start),
        "sci_stop_time": _iso(stop),
        "sci_pep_id": one.proposal,
        "sci_ra": one.ra,
        "sci_dec": one.dec,
        "sci_asn_id": dataset.name.upper() if one.association else None,
        "sci_expflag": f"{'INTERRUPTED' if broken else 'NORMAL':<13}",
        "sci_instrument_config": f"{of.instrument}/{of.detector}",
        "sci_operating_mode": f"{dataset.mode:<10}",
        "sci_central_wavelength": float(of.cenwave) if of.cenwave else None,
        "sci_mtflag": "T" if one.is_moving else "F",
        "sci_release_date": _iso(dataset.released or _FAR_OFF),
        "sci_generation_date": _iso(dataset.generated),
        "sci_aec": dataset.aec,
        "sci_obs_type": "IMAGE" if of.is_image else "SPECTRUM",
        "sci_status": "PUBLIC" if dataset.is_public else "PROPRIETARY",
        "sci_target_descrip": "STAR;GENERATED",
    }


def _iso(when: datetime) -> str:
    return when.replace(tzinfo=None).isoformat()


def _near(rows: list[Row], asked: Row) -> list[Row]:
    """Return rows near positions, each with how far it is."""
    found = []
    for place in asked["target"]:
        ra, dec = (float(part) for part in place.split())
        far = distance_deg(
            ra, dec, np.array([row["sci_ra"] for row in rows]), np.array([row["sci_dec"] for row in rows])
        )
        radius_deg = float(asked["radius"]) / _UNITS_PER_DEG[asked["radius_units"]]
        found += [
            row | {"ang_sep": 60 * away, "search_pos": place, "search_key": place + row["sci_data_set_name"]}
            for row, away in zip(rows, far.tolist(), strict=True)
            if away <= radius_deg
        ]
    return found


def _fulfils(value: Any, condition: Any) -> bool:
    """Say whether a value is one of those that a condition lists, and none of those that it negates."""
    parts = [part.strip() for part in str(condition).split(",") if part.strip()]
    wanted, barred = [one for one in parts if one[0] != "!"], [one[1:] for one in parts if one[0] == "!"]
    return not any(_is(value, one) for one in barred) and (not wanted or any(_is(value, one) for one in wanted))


def _is(value: Any, text: str) -> bool:
    if value is None:
        return False
    is_number = isinstance(value, int | float)

    def read(one: str) -> Any:
        return float(one) if is_number else one.strip().upper()

    mine = value if is_number else read(value)
    if found := re.fullmatch(r"(<=|>=|<|>)(.*)", text):
        limit = read(found[2])
        return bool({"<": mine < limit, "<=": mine <= limit, ">": mine > limit, ">=": mine >= limit}[found[1]])
    if ".." in text:
        low, high = (read(one) for one in text.split("..", 1))
        return bool(low <= mine <= high)
    if is_number:
        return bool(mine == read(text))
    return re.fullmatch(re.escape(read(text)).replace(r"\*", ".*"), mine) is not None


def _json(answer: Any, status: int = 200) -> Response:
    return Response(json.dumps(answer).encode(), status, "application/json")
