"""Papers as BibTeX: from facts that a source declares, or from the bibcode alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

# The macros of ADS, by the journal's five letters of a bibcode.
_MACROS = {
    "A&A": r"\aap",
    "A&AS": r"\aaps",
    "AJ": r"\aj",
    "ARA&A": r"\araa",
    "ApJ": r"\apj",
    "ApJS": r"\apjs",
    "MNRAS": r"\mnras",
    "Natur": r"\nat",
    "NewA": r"\na",
    "PASJ": r"\pasj",
    "PASP": r"\pasp",
    "SoPh": r"\solphys",
}
# https://ui.adsabs.harvard.edu/help/actions/bibcode: YYYYJJJJJVVVVMPPPPA.
_BIBCODE = re.compile(r"(?P<year>\d{4})(?P<journal>.{5})(?P<volume>.{4})(?P<section>.)(?P<page>.{4})(?P<initial>.)")
_ARXIV = re.compile(r"(?P<year>\d{4})arXiv(?P<first>\d{4})(?P<rest>\d{5})(?P<initial>.)")
_ESCAPED = str.maketrans({"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"})


@dataclass(frozen=True)
class Paper:
    """A paper to cite.

    Parameters
    ----------
    bibcode
        ADS's name of it.
    authors, title
        As BibTeX has them.
    doi, eprint
        Digital object identifier, and number at arXiv.
    """

    bibcode: str
    authors: str | None = None
    title: str | None = None
    doi: str | None = None
    eprint: str | None = None

    def bibtex(self) -> str:
        r"""Return the entry; year, journal, volume and page are those of the bibcode.

        Examples
        --------
        >>> print(Paper("2019PASP..131a8003M", title="The ZTF").bibtex())
        @article{2019PASP..131a8003M,
          title = {{The ZTF}},
          journal = {\pasp},
          year = {2019},
          volume = {131},
          pages = {018003},
          adsurl = {https://ui.adsabs.harvard.edu/abs/2019PASP..131a8003M}
        }
        """
        fields = {"author": self.authors, "title": self.title and f"{{{self.title}}}"}
        fields |= _of_bibcode(self.bibcode)
        fields |= {"doi": self.doi}
        if self.eprint:
            fields |= {"eprint": self.eprint, "archivePrefix": "arXiv"}
        fields["adsurl"] = f"https://ui.adsabs.harvard.edu/abs/{quote(self.bibcode, safe='.')}"
        if self.authors is None and self.title is None:
            fields["note"] = "authors and title: see adsurl"
        return entry("article", self.bibcode, fields)


def _of_bibcode(bibcode: str) -> dict[str, str | None]:
    if found := _ARXIV.fullmatch(bibcode):
        number = f"{found['first']}.{found['rest']}"
        return {"journal": "arXiv e-prints", "year": found["year"], "eid": f"arXiv:{number}", "eprint": number}
    found = _BIBCODE.fullmatch(bibcode)
    if found is None:
        return {}
    journal = found["journal"].strip(".")
    page = found["page"].strip(".")
    if found["section"].islower():  # a page of five or six digits: a is 1, b is 2
        page = f"{ord(found['section']) - 96:02d}{page:0>4}"
    elif found["section"] not in (".", "L", "P", "Q") and found["section"].isalnum():
        page = f"{found['section']}{page}"
    elif found["section"] == "L":
        page = f"L{page}"
    return {
        "journal": _MACROS.get(journal, journal.translate(_ESCAPED)),
        "year": found["year"],
        "volume": found["volume"].strip(".") or None,
        "pages": page or None,
    }


def entry(kind: str, key: str, fields: Mapping[str, str | None]) -> str:
    """Return a BibTeX entry; fields without a value are left out."""
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def escaped(text: str) -> str:
    r"""Escape the letters of a text that BibTeX and TeX take for commands.

    Examples
    --------
    >>> print(escaped("A&A_1"))
    A\&A\_1
    """
    return text.replace("\\", r"\textbackslash ").translate(_ESCAPED)
