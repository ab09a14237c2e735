"""Stand-in for NED's search by reference code, in its own VOTables of today and of 2013."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from deployments.sandbox.papers import Faults, Papers, Published, refused
from deployments.sandbox.server import Request, Response, Sandbox

PATH = "/ned/cgi-bin"

_HEAD = """<?xml version="1.0"?>
<VOTABLE version="1.1">
<DEFINITIONS>
<COOSYS ID="J2000" equinox="2000." epoch="2000." system="eq_FK5" />
</DEFINITIONS>
<RESOURCE type="results">
<DESCRIPTION>
Results from query to  NASA/IPAC Extragalactic Database (NED), a stand-in of it.
</DESCRIPTION>
<INFO name="QUERY_STATUS" value="OK"/>
<PARAM name="queryDateTime"  ucd="time.creation" datatype="char" arraysize="*" value="2026-11-28T05:08:36PDT"/>
"""
_TAIL = "</RESOURCE>\n</VOTABLE>\n"

# Name, datatype and unit of the columns; those of positions and distance have changed their names.
_TODAY = {"ra": "RA", "dec": "DEC", "distance": "Separation"}
_IN_2013 = {"ra": "RA(deg)", "dec": "DEC(deg)", "distance": "Distance (arcmin)"}


class Ned:
    """Mounted at `url`/objsearch until the sandbox closes.

    Attributes
    ----------
    columns : dict
        Names of the columns that have changed: today's; `of_2013` sets the older ones.
    faults : Faults
        error (a VOTable that says so, with status 200), zero (a table without rows), empty (no body), refused (403),
        numbers (an object is left out).
    """

    def __init__(self, sandbox: Sandbox, papers: Papers) -> None:
        self.papers = dict(papers)
        self.url = sandbox.url(PATH)
        self.columns = _TODAY
        self.faults = Faults(frozenset({"error", "zero", "empty", "refused", "numbers"}))
        sandbox.mount(f"{PATH}/objsearch", self._answer)

    def of_2013(self) -> None:
        """Name the columns as NED did in 2013."""
        self.columns = _IN_2013

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def _answer(self, request: Request) -> Response:
        asked = parse_qs(request.query)
        fault = self.faults.take()
        if fault in ("empty", "refused"):
            return refused() if fault == "refused" else Response(b"", 200, "text/xml")
        if asked.get("of") != ["xml_main"] or asked.get("search_type") != ["Search"]:
            return Response(b"<html><body>NED Search Results</body></html>", 200, "text/html")
        objects = self.papers.get(asked.get("refcode", [""])[0])
        if objects is None or fault == "error":
            said = " The database is not available." if fault == "error" else " No objects found."
            return _xml(f'{_HEAD}<PARAM name="Error" value="{said}"/>\n{_TAIL}')
        ordered = sorted(objects, key=lambda one: one.ra)
        numbered = list(enumerate(ordered, 1))
        if fault == "zero":
            numbered = []
        if fault == "numbers":
            del numbered[len(numbered) // 2]
        return _xml(_HEAD + self._table(numbered) + _TAIL)

    def _table(self, objects: list[tuple[int, Published]]) -> str:
        names = self.columns
        fields = (
            ("No.", 'datatype="int" width="4" type="hidden"'),
            ("Object Name", 'datatype="char" arraysize="30" width="30"'),
            (names["ra"], 'ucd="pos.eq.ra;meta.main" datatype="double" unit="degrees" width="10"'),
            (names["dec"], 'ucd="pos.eq.dec;meta.main" datatype="double" unit="degrees" width="10"'),
            ("Type", 'datatype="char" arraysize="*" width="10"'),
            ("Velocity", 'datatype="double" unit="km/sec" width="10"'),
            ("Redshift", 'datatype="double" width="10"'),
            ("Redshift Flag", 'datatype="char" arraysize="*" width="5"'),
            (names["distance"], 'datatype="double" unit="arcmin" width="10"'),
            ("References", 'datatype="int" width="5"'),
        )
        heads = "".join(
            f'<FIELD ID="main_col{n}" name="{escape(name)}" {rest}>\n</FIELD>\n'
            for n, (name, rest) in enumerate(fields, 1)
        )
        rows = "".join(
            "<TR>\n"
            + "".join(
                f"<TD>{cell}</TD>\n"
                for cell in (
                    number,
                    escape(one.name),
                    f"{one.ra:9.5f} ",
                    f"{one.dec:10.5f} ",
                    one.kind,
                    "" if one.redshift is None else f"{299792.458 * one.redshift:6.0f}",
                    "" if one.redshift is None else f" {one.redshift:.6f} ",
                    "    ",
                    "",
                    7,
                )
            )
            + "</TR>\n"
            for number, one in objects
        )
        return (
            f'<TABLE ID="NED_MainTable" name="Main Information Table for object(s)">\n{heads}'
            f"<DATA>\n<TABLEDATA>\n{rows}</TABLEDATA>\n</DATA>\n</TABLE>\n"
        )


def mount(
    sandbox: Sandbox, root: Path, *, seed: int = 0, scale: float = 1.0, targets: Iterable[tuple[float, float]] = ()
) -> str:
    """Serve no papers yet, and return the endpoint; the service is ``sandbox.services["ned"]``."""
    service = sandbox.services["ned"] = Ned(sandbox, {})
    return service.url


def _xml(text: str) -> Response:
    return Response(text.encode(), 200, "text/xml")
