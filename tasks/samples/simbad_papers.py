"""Ask SIMBAD for the objects of a paper through its TAP: astroquery's query by bibcode, with redshifts and an order."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from tasks.samples.answers import Answer, Objects
from tasks.samples.services import SIMBAD, Asking, explaining
from tasks.services.retry import with_retries
from tasks.services.tap import Service

# A paper with more objects is a catalogue, which VizieR has.
_MOST_OBJECTS = 200_000
_BIBCODE = "0000Bibcode00000000"


def objects_of(asking: Asking, bibcode: str) -> Objects:
    """Return the objects that SIMBAD lists of a paper, by their names.

    Raises
    ------
    ArchiveError
        If it does not answer, or not with objects that have positions.
    TruncatedAnswer
        If the answer is not all.
    """
    settings = asking.settings
    service = Service(SIMBAD.name, SIMBAD.endpoint(settings), settings.timeout_s, settings.task_timeout_s)
    adql = _query().replace(_BIBCODE, bibcode.replace("'", "''"))

    def once() -> pa.Table:
        asking.requests += 1
        return service.query(adql, maxrec=_MOST_OBJECTS)

    with explaining(SIMBAD):
        answer = Answer(SIMBAD, with_retries(once, settings), service.url)
        if not answer.table.num_rows:
            raise SIMBAD.failed(
                f"it has no objects of {bibcode}", service.url, transient=False, hint="check the bibcode"
            )
    ra, dec = answer.positions(("ra",), ("dec",))
    return Objects(
        answer,
        adql,
        answer.texts("main_id"),
        ra,
        dec,
        answer.redshifts("rvz_redshift"),
        list(range(1, len(ra) + 1)),
        "SIMBAD",
    )


@cache
def _query() -> str:
    from astroquery.simbad import SimbadClass

    class Simbad(SimbadClass):  # type: ignore[misc]  # astroquery comes without types
        # Else it would ask the service.
        hardlimit = _MOST_OBJECTS

    adql = str(Simbad().query_bibobj(_BIBCODE, get_query_payload=True)["QUERY"])
    columns, rest = adql.split(" FROM ", 1)
    # Without an order the rows come in any.
    return f'{columns}, basic."rvz_redshift" FROM {rest} ORDER BY main_id'
