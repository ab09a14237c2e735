"""Ask ALeRCE for objects of ZTF by their names: their mean positions.

ALeRCE gives 10 objects a page unless told otherwise, in any order, and leaves out what it does not know.
"""

from __future__ import annotations

import re

import pyarrow as pa

from lake.errors import ConfigurationError
from lake.settings import Settings
from lake.text import counted
from tasks.samples.options import ZtfOptions
from tasks.samples.sample import COLLECTED, Collected
from tasks.samples.services import ALERCE, Asking, query_text
from tasks.services.bounds import Budget, parsed_json
from tasks.services.http import Reply, excerpt

# Names of a request: its URL stays below two thousand letters.
_NAMES = 100
_PATH = "objects"
_OID = re.compile(r"ZTF\d{2}[a-z]{7}")


def named(options: ZtfOptions, settings: Settings) -> Collected:
    """Get objects by their names, all or none.

    Raises
    ------
    ConfigurationError
        If a name is none that ZTF gives.
    ArchiveError
        If ALeRCE does not answer, or does not know all of them.
    """
    oids = list(dict.fromkeys(oid.strip() for oid in options.oids))
    if wrong := [oid for oid in oids if not _OID.fullmatch(oid)]:
        raise ConfigurationError(f"{wrong[0]!r} is no name of ZTF", hint="they are such as ZTF18aabtxvd")
    asking = Asking(ALERCE, settings)
    url = f"{ALERCE.endpoint(settings)}/{_PATH}"
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(oids), _NAMES):
        found |= _objects(asking, oids[start : start + _NAMES])
    if missing := [oid for oid in oids if oid not in found]:
        raise ALERCE.failed(
            f"it does not know {len(missing)} of {counted(len(oids), 'name')}: {', '.join(missing[:10])}",
            url,
            transient=False,
            hint="check them",
        )
    n = len(oids)
    targets = pa.table(
        {
            "name": oids,
            "ra": [found[oid][0] for oid in oids],
            "dec": [found[oid][1] for oid in oids],
            "redshift": pa.nulls(n, pa.float64()),
            "label": [options.label] * n,
            "bibcode": pa.nulls(n, pa.string()),
            "catalogue": [ALERCE.title] * n,
            "row_in_catalogue": pa.nulls(n, pa.int64()),
            "name_in_catalogue": pa.nulls(n, pa.string()),
        },
        COLLECTED,
    )
    return Collected(
        sample=options.sample or __name__.rpartition(".")[2],
        targets=targets,
        service=ALERCE.name,
        endpoint=url,
        query=query_text("GET", url, "&".join(f"oid={oid}" for oid in oids)),
        asked_at=asking.asked_at,
        answered=n,
        expected=n,
        seen=asking.asked_at.date(),
        seconds=asking.seconds,
        requests=asking.requests,
    )


def _objects(asking: Asking, oids: list[str]) -> dict[str, tuple[float, float]]:
    """Return the positions of the objects that ALeRCE knows, deg."""
    found: dict[str, tuple[float, float]] = {}
    page = 1
    while True:
        parameters = [*(("oid", oid) for oid in oids), ("page", str(page)), ("page_size", str(len(oids)))]

        def read(reply: Reply, budget: Budget) -> tuple[dict[str, tuple[float, float]], bool]:
            return _read(reply, budget, set(oids))

        more, has_next = asking.ask("GET", _PATH, read, params=parameters)
        if not has_next or not more.keys() - found.keys():
            return found | more
        found |= more
        page += 1


def _read(reply: Reply, budget: Budget, oids: set[str]) -> tuple[dict[str, tuple[float, float]], bool]:
    try:
        answer = parsed_json(reply.content, budget)
    except ValueError as error:
        raise ALERCE.failed(f"the answer is no JSON: {excerpt(reply.content) or 'it is empty'}", reply.url) from error
    try:
        items = {item["oid"]: (float(item["meanra"]), float(item["meandec"])) for item in answer["items"]}
        has_next = bool(answer["has_next"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"the answer has no items with oid, meanra and meandec: {excerpt(reply.content)}"
        raise ALERCE.failed(message, reply.url, transient=False) from error
    if strange := sorted(items.keys() - oids):
        raise ALERCE.failed(f"it answers with {strange[0]}, which was not asked for", reply.url, transient=False)
    if any(not (0 <= ra <= 360 and abs(dec) <= 90) for ra, dec in items.values()):
        raise ALERCE.failed("an object has no position on the sky", reply.url, transient=False)
    return items, has_next
