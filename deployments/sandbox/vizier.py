"""Stand-in for VizieR's `votable`: which tables a paper has, and the rows of a table, in the forms astroquery sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

import pyarrow as pa

from deployments.sandbox.papers import Faults, refused
from deployments.sandbox.server import Request, Response, Sandbox

PATH = "/vizier/viz-bin"

_HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xmlns="http://www.ivoa.net/xml/VOTable/v1.3"
  xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 http://www.ivoa.net/xml/VOTable/v1.3">
 <DESCRIPTION>
   VizieR Astronomical Server, a stand-in of it
 </DESCRIPTION>
<INFO ID="VERSION" name="votable-version" value="1.99+ (14-Oct-2013)"/>
"""
_NO_SERVER = """<INFO ID="Error" name="Error" value="The database is not currently reachable." />
<INFO name="Error" value=" -- no connection" />
<INFO name="QUERY_STATUS" value="ERROR">

 -- no connection
 Report from: stdb_pg,     Status: STDB_ERR
Postgres connect error
</INFO>
<RESOURCE></RESOURCE>
"""
_TYPES = {pa.float64(): 'datatype="double"', pa.int64(): 'datatype="int"', pa.string(): 'datatype="char" arraysize="*"'}


@dataclass(frozen=True)
class Catalogue:
    """A table of a paper: its columns have names, and no IDs."""

    bibcode: str
    rows: pa.Table


class Vizier:
    """Mounted at `url`/votable until the sandbox closes.

    Attributes
    ----------
    catalogues : dict
        Tables by their ids, such as J/ApJ/933/180/table2.
    faults : Faults
        no-server (a VOTable that says ERROR, with status 200), empty, refused (403), cut (half of the rows, and
        nothing says so), truncated (half, and a warning), unlisted (the paper is not found).
    asked : list of str
        Bodies of all requests.
    """

    def __init__(self, sandbox: Sandbox, catalogues: Mapping[str, Catalogue]) -> None:
        self.catalogues = dict(catalogues)
        self.url = sandbox.url(PATH)
        self.faults = Faults(frozenset({"no-server", "empty", "refused", "cut", "truncated", "unlisted"}))
        self.asked: list[str] = []
        sandbox.mount(f"{PATH}/votable", self._answer)

    def close(self) -> None:
        """Do nothing: it holds nothing."""

    def _answer(self, request: Request) -> Response:
        text = request.body.decode()
        self.asked.append(text)
        fault = self.faults.take()
        if fault in ("empty", "refused"):
            return refused() if fault == "refused" else Response(b"", 200, "text/xml")
        if fault == "no-server":
            return _xml(_HEAD + _NO_SERVER)
        if text.startswith("-words="):
            words = "" if fault == "unlisted" else parse_qs(text, keep_blank_values=True)["-words"][0]
            return self._found(words)
        asked = dict(line.partition("=")[::2] for line in text.split("\n"))
        return self._rows(asked, fault)

    def _found(self, words: str) -> Response:
        """List the tables of a paper, with their rows, and without these."""
        found = {name: one for name, one in self.catalogues.items() if words and words in (one.bibcode, name)}
        resources: dict[str, str] = {}
        for name, one in found.items():
            table = f'<TABLE name="{name}" type="meta" nrows="{len(one.rows)}">\n{_fields(one.rows)}</TABLE>\n'
            resources[_parent(name)] = resources.get(_parent(name), "") + table
        body = "".join(
            f'<RESOURCE name="{name}" type="meta">\n{tables}</RESOURCE>\n' for name, tables in resources.items()
        )
        return _xml(_HEAD + body)

    def _rows(self, asked: Mapping[str, str], fault: str) -> Response:
        """Give the rows of a table, or of all tables of a catalogue: 50, unless more are asked for."""
        most = asked.get("-out.max", "50")
        limit = None if most == "unlimited" else int(most)
        wanted = asked.get("-source", "")
        resources: dict[str, str] = {}
        for name, one in self.catalogues.items():
            if wanted not in (name, _parent(name)):
                continue
            rows = one.rows.slice(0, limit)
            if fault in ("cut", "truncated"):
                rows = rows.slice(0, len(rows) // 2)
            note = '<INFO name="Warning" value="truncated result (maxtup=50)"/>\n' if fault == "truncated" else ""
            table = f'<TABLE name="{name}">\n{_fields(rows)}{_data(rows)}</TABLE>\n{note}'
            resources[_parent(name)] = resources.get(_parent(name), "") + table
        body = "".join(f'<RESOURCE name="{name}">\n{tables}</RESOURCE>\n' for name, tables in resources.items())
        return _xml(_HEAD + body)


def mount(
    sandbox: Sandbox, root: Path, *, seed: int = 0, scale: float = 1.0, targets: Iterable[tuple[float, float]] = ()
) -> str:
    """Serve no tables yet, and return the endpoint; the service is ``sandbox.services["vizier"]``."""
    service = sandbox.services["vizier"] = Vizier(sandbox, {})
    return service.url


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _fields(rows: pa.Table) -> str:
    return "".join(f'<FIELD name="{escape(one.name)}" {_TYPES[one.type]}/>\n' for one in rows.schema)


def _data(rows: pa.Table) -> str:
    lines = "".join(
        "<TR>" + "".join(f"<TD>{'' if cell is None else escape(str(cell))}</TD>" for cell in row.values()) + "</TR>\n"
        for row in rows.to_pylist()
    )
    return f"<DATA><TABLEDATA>\n{lines}</TABLEDATA></DATA>\n"


def _xml(text: str) -> Response:
    return Response(f"{text}</VOTABLE>\n".encode(), 200, "text/xml")
