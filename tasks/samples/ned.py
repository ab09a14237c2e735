"""Ask NED for the objects of a paper: its search by reference code, as astroquery composes it.

NED lists what its people took from a paper: comparison objects, too, and of long tables that were only published
online often a part. Column names have changed over the years: RA was RA(deg).
"""

from __future__ import annotations

from typing import Any

from lake.text import counted
from tasks.samples.answers import Answer, Objects
from tasks.samples.services import NED, Asking, query_text, read_votable
from tasks.services.bounds import Budget
from tasks.services.http import Reply
from tasks.services.tap import to_arrow

_PATH = "objsearch"
# What NED says when the database behind it is away, in distinction to a reference code that it does not know.
_PASSING = ("time", "unavailable", "try again", "database", "busy", "internal", "server")


def objects_of(asking: Asking, bibcode: str) -> Objects:
    """Return the objects that NED lists of a paper.

    Raises
    ------
    ArchiveError
        If it does not answer, or not with a whole list of objects with positions.
    """
    payload = _payload(bibcode)
    url = f"{NED.endpoint(asking.settings)}/{_PATH}"

    def read(reply: Reply, budget: Budget) -> Answer:
        return _read(reply, budget, bibcode)

    answer = asking.ask("GET", _PATH, read, params=payload)
    ra, dec = answer.positions(("RA", "RA(deg)"), ("DEC", "Dec", "DEC(deg)"))
    return Objects(
        answer,
        query_text("GET", url, payload),
        answer.texts("Object Name"),
        ra,
        dec,
        answer.redshifts("Redshift"),
        answer.column("No.").to_pylist(),
        "NED",
    )


def _payload(bibcode: str) -> dict[str, Any]:
    from astroquery.ipac.ned import NedClass

    return dict(NedClass().query_refcode(bibcode, get_query_payload=True))


def _read(reply: Reply, budget: Budget, bibcode: str) -> Answer:
    document = read_votable(reply, budget, NED, reply.url)
    resources = list(document.resources)
    for param in (param for resource in resources for param in resource.params):
        if param.name == "Error":
            said = str(param.value).strip()
            passes = any(word in said.lower() for word in _PASSING)
            raise NED.failed(
                f"it says of {bibcode}: {said or 'an error without words'}",
                reply.url,
                transient=passes,
                hint=None if passes else "check the bibcode, or ask another service",
            )
    table = next(document.iter_tables(), None)
    if table is None:
        raise NED.failed("the answer has no table", reply.url)
    answer = Answer(NED, to_arrow({one.name: table.array[one.ID] for one in table.fields}, keep_case=True), reply.url)
    rows = answer.table.num_rows
    if not rows:
        raise NED.failed(f"it has no objects of {bibcode}", reply.url, transient=False, hint="check the bibcode")
    if answer.column("No.").to_pylist() != list(range(1, rows + 1)):
        raise NED.failed(
            f"its {counted(rows, 'object is not', 'objects are not')} numbered from 1: the list is not whole", reply.url
        )
    return answer
