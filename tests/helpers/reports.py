"""A report's page, read back: its numbers and its queries."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from bs4 import BeautifulSoup, Tag

from helpers.granules import committed, positions
from lake.commit.targets import add_targets
from lake.store.catalog import Catalog

HOSTILE = "</script></title><script>globalThis.ran = 1</script><img src=x onerror='globalThis.ran = 1'>"


def half_failed(catalog: Catalog) -> None:
    """Fill a lake: of 40 targets ztf failed for 10, wise rejected 13 and was not asked for 15; a tile failed, too."""
    ra, dec = positions(range(40))
    names = [f"{HOSTILE} {{{i}}} $(id) `id`" if i % 5 == 0 else f"Q {i}" for i in range(40)]
    add_targets(catalog, pa.table({"name": names, "ra": ra, "dec": dec}), f"s{HOSTILE}")
    add_targets(catalog, pa.table({"name": names[:7], "ra": ra[:7], "dec": dec[:7]}), "few")
    committed(catalog, range(20), "g1", targets=range(30))
    committed(catalog, [], "g2", targets=range(30, 40), status="failed", attempt_status="failed")
    committed(catalog, range(10), "w1", targets=range(12), archive="wise", release="neo7")
    bad = {"status": "rejected", "attempt_status": "rejected"}
    committed(catalog, [], "w2", targets=range(12, 25), archive="wise", release="neo7", **bad)
    committed(catalog, [], "tile", targets=[], archive="virac", release="2", attempt_status="failed")


@dataclass
class Read:
    """A report as it is on its page."""

    soup: BeautifulSoup

    @classmethod
    def of(cls, path: Path) -> Read:
        return cls(BeautifulSoup(path.read_text(), "html.parser"))

    def sql(self, name: str) -> str:
        """The query of a section, as a shell reads its command."""
        shell = shlex.split(self._one(f"#sql-{name}").text)
        assert shell[:2] == ["lightlake", "sql"]
        assert len(shell) == 3
        assert not {"$", "`", "\\", "!"} & set(shell[2]), "a shell would change it"
        return shell[2]

    def facts(self) -> dict[str, str]:
        """The numbers on top; each leads to its query."""
        found = {}
        for one in self.soup.select(".facts > div"):
            (link,) = one.select("b > a")
            assert self.soup.select(str(link["href"]))
            found[one.select("span")[0].text] = link.text
        return found

    def grid(self, name: str) -> dict[str, dict[str, str]]:
        """The values of a map, by row and column."""
        table = self._in(name, "table.grid")
        if table is None:
            return {}
        heads = [one.text for one in table.select("thead th")][1:]
        return {
            row.select("th")[0].text: {
                head: str(cell["data-v"]) for head, cell in zip(heads, row.select("td"), strict=True)
            }
            for row in table.select("tbody tr")
        }

    def table(self, name: str) -> list[dict[str, str]]:
        """The values of a table, by heading."""
        table = self._in(name, "table.list")
        if table is None:
            return []
        heads = [one.text for one in table.select("thead th")]
        return [
            {head: str(cell["data-v"]) for head, cell in zip(heads, row.select("td"), strict=True)}
            for row in table.select("tbody tr")
        ]

    def dots(self) -> list[tuple[int, int]]:
        """The dots on the sky: targets and points of each."""
        return [(int(str(one["data-targets"])), int(str(one["data-v"]))) for one in self.soup.select("svg.sky circle")]

    def text(self, name: str) -> str:
        """The words of a section."""
        head = self._one(f"h2#{name}")
        assert isinstance(head.parent, Tag)
        return head.parent.text

    def _in(self, name: str, what: str) -> Tag | None:
        head = self._one(f"h2#{name}")
        assert head.select(f'a[href="#query-{name}"]'), "a link to its query"
        assert isinstance(head.parent, Tag)
        found = head.parent.select(what)
        return found[0] if found else None

    def _one(self, what: str) -> Tag:
        (found,) = self.soup.select(what)
        return found
