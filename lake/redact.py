"""Remove secrets from everything that is shown, logged or stored."""

from __future__ import annotations

import re

from lake.text import one_line, visible

_HIDDEN = "***"

# Names of secrets in query strings, connection strings, JSON, reprs and SQL. Repetitions have bounds, because texts of
# servers may be long.
_NAMES = (
    r"[\w.-]{0,40}(?:passw(?:or)?d|passphrase|secret|token|signature|credential|api[_-]?key|access[_-]?key|key[_-]?id"
    r"|private[_-]?key|account[_-]?key|authorization)[\w.-]{0,40}"
)
_IN_QUERIES = rf"{_NAMES}|key|sig|pwd|pw|auth|session(?:id)?"

# A quoted value, also within quoted text; and a check that the value is not hidden already.
_QUOTED = r"""'(?:\\.|''|[^'\\])*'|"(?:\\.|[^"\\])*"|\\(?P<q>["']).{0,500}?\\(?P=q)"""
_DONE = r"""(?!\\?['"]?\*{3}\\?['"]?(?:[^\w*]|$))"""
_ELSEWHERE = r"(?<!\bpostgres)(?<!\bpostgresql)(://)"


# The rules find nothing in a text without any of these; most texts have none.
_SIGNS = re.compile(r"@|pass|secret|token|sig|credential|key|pw|auth|session", re.IGNORECASE)


def _rule(pattern: str, instead: str) -> tuple[re.Pattern[str], str]:
    return re.compile(pattern, re.IGNORECASE), instead


_RULES = (
    # PostgreSQL's user is no secret, and tells connections apart. Elsewhere the user may be a key.
    _rule(r"(\bpostgres(?:ql)?://[^:/@\s\"']{0,200}):[^\s\"<>]{0,500}@", rf"\1:{_HIDDEN}@"),
    # The last @ ends it: a password may contain a / or @ that should have been percent-encoded. A port, or a path with
    # an @, is not a password.
    _rule(rf"{_ELSEWHERE}[^/?#\s\"<>@:]{{1,200}}:(?!\d*[/?#])[^\s\"<>]{{0,500}}@", rf"\1{_HIDDEN}@"),
    _rule(rf"{_ELSEWHERE}[^/?#\s\"<>]{{0,500}}@", rf"\1{_HIDDEN}@"),
    _rule(rf"([?&;](?:{_IN_QUERIES})=){_DONE}[^&\s\"'<>#]+", rf"\1{_HIDDEN}"),
    _rule(rf"""((\\?["'])(?:{_NAMES})\2\s*:\s*){_DONE}(?:{_QUOTED}|[^\s,}}\])]+)""", rf"\1\2{_HIDDEN}\2"),
    _rule(rf"(\b(?:{_NAMES})\s*=\s*){_DONE}(?:{_QUOTED}|[^\s&\"',)\]]+)", rf"\1{_HIDDEN}"),
    _rule(rf"(\b(?:key_id|secret|session_token)\s+){_DONE}'(?:''|[^'])*'", rf"\1'{_HIDDEN}'"),
    _rule(r"(\bauthorization\s*[:=]\s*(?:(?:basic|bearer|token)\s+)?+)(?!\*{3})[^\s'\",]+", rf"\1{_HIDDEN}"),
)


def redacted(text: str) -> str:
    """Hide everything that may be secret: users and keys in URLs, passwords, tokens.

    What is hidden already stays as it is, so the function may be applied twice.

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
    """Convert something to one line without secrets and control characters."""
    return one_line(redacted(str(text)))


def safe_text(text: object) -> str:
    """Convert something to lines without secrets and control characters, such as those of a traceback."""
    return visible(redacted(str(text)), keep="\n\t")
