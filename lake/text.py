"""Make text from lists, archives and servers safe to show."""

from __future__ import annotations

import hashlib
import re
import unicodedata

# Categories of characters that are invisible, or change how their neighbours look.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# File names hold 255 bytes; the rest is for prefixes and suffixes: "lost-", "-1f2e3d4c.parquet", ".part", ".1".
_LONGEST_NAME = 160
_SUSPECT = re.compile(r"[^\x20-\x7e\xa1-\xac\xae-\u05ff]")


def visible(text: str, keep: str = "") -> str:
    r"""Escape the control characters of a text.

    Escape sequences of terminals (C0 and C1), marks that change the direction of text, line separators, and halves of
    surrogate pairs become ``\x1b``, ``\u202e`` and so on.

    Parameters
    ----------
    keep
        Characters to leave unchanged, such as newlines.

    Examples
    --------
    >>> print(visible("M\x1b[2J 87"))
    M\x1b[2J 87
    """

    def shown(match: re.Match[str]) -> str:
        one = match[0]
        if one in keep or unicodedata.category(one) not in _UNSEEN:
            return one
        return one.encode("unicode_escape").decode()

    return _SUSPECT.sub(shown, text)


def one_line(text: str) -> str:
    """Join a text to one line, with control characters escaped and each run of white space as one space."""
    return visible(" ".join(text.split()))


def counted(n: int, one: str, more: str | None = None) -> str:
    """Count things with the right plural.

    Examples
    --------
    >>> counted(1, "row"), counted(2, "row"), counted(0, "match", "matches")
    ('1 row', '2 rows', '0 matches')
    """
    return f"{n} {one if n == 1 else more or f'{one}s'}"


def as_size(n: float) -> str:
    """Write a number of bytes with a unit and three digits.

    Examples
    --------
    >>> as_size(39458), as_size(2_500_000_000), as_size(7)
    ('39.5 kB', '2.5 GB', '7 bytes')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= factor:
            return f"{n / factor:.3g} {unit}" if n < 999.5 * factor else f"{n / factor:.0f} {unit}"
    return counted(round(n), "byte")


def file_name(name: str) -> str:
    """Shorten the id of a granule or claim for use in file names, which hold 255 bytes.

    A long id keeps its beginning and gets a hash.

    Examples
    --------
    >>> file_name("ztf-4f2a")
    'ztf-4f2a'
    >>> len(file_name(300 * "x")), file_name(300 * "x") == file_name(301 * "x")
    (160, False)
    """
    data = name.encode("utf-8", "surrogateescape")
    if len(data) <= _LONGEST_NAME:
        return name
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return f"{data[: _LONGEST_NAME - len(digest) - 1].decode('utf-8', 'ignore')}-{digest}"
