"""Stand-in for ALeRCE's list of objects of ZTF: 10 a page unless more are asked for, in any order, no unknowns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np

from deployments.sandbox.papers import Faults, refused
from deployments.sandbox.server import Request, Response, Sandbox

PATH = "/alerce/ztf/v1"
_MOST = 1000


def generated(n: int, *, seed: int) -> dict[str, tuple[float, float]]:
    """Make objects with names of ZTF's form, and positions."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(0, 26, (n, 5))
    names = ["ZTF18aa" + "".join(chr(97 + one) for one in row) for row in letters.tolist()]
    places = zip(rng.uniform(0.0, 360.0, n).tolist(), rng.uniform(-25.0, 80.0, n).tolist(), strict=True)
    return dict(zip(names, places, strict=True))


class Alerce:
    """Mounted at `url`/objects until the sandbox closes.

    Attributes
    ----------
    objects : dict
        Positions by name.
    page_size : int or None
        Largest page, whatever is asked for.
    faults : Faults
        empty (no body), refused (403), no-items (JSON of another form), strange (an object that was not asked for).
    """

    def __init__(self, sandbox: Sandbox, objects: Mapping[str, tuple[float, float]]) -> None:
        self.objects = dict(objects)
        self.url = sandbox.url(PATH)
        self.page_size: int | None = None
        self.faults = Faults(frozenset({"empty", "refused", "no-items", "strange"}))
        sandbox.mount(f"{PATH}/objects", self._answer)

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def _answer(self, request: Request) -> Response:
        asked = parse_qs(request.query)
        fault = self.faults.take()
        if fault in ("empty", "refused"):
            return refused() if fault == "refused" else Response(b"", 200, "application/json")
        if fault == "no-items":
            return _json({"status": "ok"})
        page, size = (int(asked.get(name, [str(usual)])[0]) for name, usual in (("page", 1), ("page_size", 10)))
        size = min(size, self.page_size or _MOST)
        known = [oid for oid in dict.fromkeys(asked.get("oid", [])) if oid in self.objects]
        known.sort(key=lambda oid: hashlib.blake2b(oid.encode()).digest())
        chosen = known[(page - 1) * size : page * size]
        has_next = page * size < len(known)
        items = [_item(oid, *self.objects[oid]) for oid in chosen]
        if fault == "strange":
            items.append(_item("ZTF17aaaaaaa", 1.0, 1.0))
        more = {"total": None, "page": page, "next": page + 1, "has_next": has_next, "prev": None, "has_prev": page > 1}
        return _json({**more, "items": items})


def mount(
    sandbox: Sandbox, root: Path, *, seed: int = 0, scale: float = 1.0, targets: Iterable[tuple[float, float]] = ()
) -> str:
    """Serve forty objects, and return the endpoint; the service is ``sandbox.services["alerce"]``."""
    service = sandbox.services["alerce"] = Alerce(sandbox, generated(40, seed=seed))
    return service.url


def _item(oid: str, ra: float, dec: float) -> dict[str, object]:
    return {
        "oid": oid,
        "ndethist": "42",
        "ncovhist": 600,
        "mjdstarthist": 58200.1,
        "mjdendhist": 60900.2,
        "corrected": True,
        "stellar": False,
        "ndet": 40,
        "firstmjd": 58200.1,
        "lastmjd": 60900.2,
        "meanra": ra,
        "meandec": dec,
        "sigmara": 1e-5,
        "sigmadec": 1e-5,
        "class": None,
        "classifier": None,
        "probability": None,
    }


def _json(answer: object) -> Response:
    return Response(json.dumps(answer).encode(), 200, "application/json")
