"""Secrets do not leave the settings: the one function that takes them out of whatever is shown, logged or kept."""

from __future__ import annotations

import re

from lake.text import one_line, visible

_HIDDEN = "***"

# Names of what is secret, in query strings, connection strings, JSON, reprs and SQL. Repetitions have bounds: what a
# server says may be long.
_NAMES = (
    r"[\w.-]{0,40}(?:passw(?:or)?d|passphrase|secret|token|signature|credential|api[_-]?key|access[_-]?key|key[_-]?id"
    r"|private[_-]?key|account[_-]?key|authorization)[\w.-]{0,40}"
)
_IN_QUERIES = rf"{_NAMES}|key|sig|pwd|pw|auth|session(?:id)?"

# A quoted value, also within a text that is quoted itself; and that it is not what was hidden before.
_QUOTED = r"""'(?:\\.|''|[^'\\])*'|"(?:\\.|[^"\\])*"|\\(?P<q>["']).{0,500}?\\(?P=q)"""
_DONE = r"""(?!\\?['"]?\*{3}\\?['"]?(?:[^\w*]|$))"""
_ELSEWHERE = r"(?<!\bpostgres)(?<!\bpostgresql)(://)"


# A text without any of these has no secret that the rules would find; most have none.
_SIGNS = re.compile(r"@|pass|secret|token|sig|credential|key|pw|auth|session", re.IGNORECASE)


def _rule(pattern: str, instead: str) -> tuple[re.Pattern[str], str]:
    return re.compile(pattern, re.IGNORECASE), instead


_RULES = (
    # PostgreSQL's user is no secret, and a connection is hard to tell from another without. Elsewhere it may be a key.
    _rule(r"(\bpostgres(?:ql)?://[^:/@\s\"']{0,200}):[^\s\"<>]{0,500}@", rf"\1:{_HIDDEN}@"),
    # The last @ ends it: there may be a / or an @ in a password that should have been percent-encoded. A port, and a
    # path with an @ in it, are something else.
    _rule(rf"{_ELSEWHERE}[^/?#\s\"<>@:]{{1,200}}:(?!\d*[/?#])[^\s\"<>]{{0,500}}@", rf"\1{_HIDDEN}@"),
    _rule(rf"{_ELSEWHERE}[^/?#\s\"<>]{{0,500}}@", rf"\1{_HIDDEN}@"),
    _rule(rf"([?&;](?:{_IN_QUERIES})=){_DONE}[^&\s\"'<>#]+", rf"\1{_HIDDEN}"),
    _rule(rf"""((\\?["'])(?:{_NAMES})\2\s*:\s*){_DONE}(?:{_QUOTED}|[^\s,}}\])]+)""", rf"\1\2{_HIDDEN}\2"),
    _rule(rf"(\b(?:{_NAMES})\s*=\s*){_DONE}(?:{_QUOTED}|[^\s&\"',)\]]+)", rf"\1{_HIDDEN}"),
    _rule(rf"(\b(?:key_id|secret|session_token)\s+){_DONE}'(?:''|[^'])*'", rf"\1'{_HIDDEN}'"),
    _rule(r"(\bauthorization\s*[:=]\s*(?:(?:basic|bearer|token)\s+)?+)(?!\*{3})[^\s'\",]+", rf"\1{_HIDDEN}"),
)


def redacted(text: str) -> str:
    """Return a text without what may be secret: user info and keys in URLs, passwords, tokens.

    What is hidden already stays as it is, so that it does no harm to ask twice.

    Examples
    --------
    >>> redacted("http://me:hunter2@example.org/tap?token=abc&band=g")
    'http://***@example.org/tap?token=***&band=g'
    >>> redacted("postgres:host=db user=me password=hunter2")
    'postgres:host=db user=me password=***'
    """
    if _SIGNS.search(text) is None:
        return text
    for rule, instead in _RULES:
        text = rule.sub(instead, text)
    return text


def safe_line(text: object) -> str:
    """Return what something says as one line to be shown: no secrets, no control characters."""
    return one_line(redacted(str(text)))


def safe_text(text: object) -> str:
    """Return the same with its lines, such as those of a traceback."""
    return visible(redacted(str(text)), keep="\n\t")
