"""The page of settings: every variable, from the model that reads them."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deployments.documentation.markdown import code, fenced, page, prose, table
from lake.settings import Settings

_HEAD = """
# Settings

Settings are environment variables, or lines of a file `.env` in the working directory. A variable of the environment
goes before a line of the file. `lightlake doctor` says which are set, and which are misspelt.
"""
_ENV = "LIGHTLAKE_URL=s3://my-bucket/my-lake\nLIGHTLAKE_WORKERS=8"
_SECRETS = """
## Secrets

Endpoints may contain a user and a password: `https://me:PASSWORD@mirror.example.org/tap`, with `/`, `@` and `#` in them
written as `%2F`, `%40` and `%23`. These, keys in query strings, and the passwords of `LIGHTLAKE_CATALOG` and
`LIGHTLAKE_STORAGE_OPTIONS` are never shown: the ledger, errors, logs, artifacts and listings have `***` instead. Only
[`lightlake attach`](commands.md#lightlake-attach) prints them, because your DuckDB needs them.

## The path of a lake

It must not contain a folder such as `archive=old`, named like a column. Readers of Hive's layout would take it for the
value of every row.
"""
_ENDPOINTS = """
## Endpoints

`LIGHTLAKE_ENDPOINTS__NAME` is another address of an archive or a service: a mirror, a local copy, a simulated archive.
Where it is a store of files, it may be a folder, `s3://` or `https://`; `AWS_ENDPOINT_URL` names another S3 service. In
an address, `{release}` stands for the release's name in small letters: `s3://mirror/NAME/{release}/lc`. What each
archive takes is said with [the archive](archives.md).
"""
_TABLES = """
## Tables

`LIGHTLAKE_TABLES__NAME` adds a table of events, as a JSON object with these keys. The name becomes a folder of the
lake, `archive=NAME`: small letters, digits and underscores, a letter first. `null`, `epoch`, `inf` and `infinity` are
refused, because readers of plain Hive folders take them for other values. [How to add one](../{page})
has an example.
"""
_KINDS: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    dict: "JSON object",
    tuple: "JSON list of texts",
}


def kind_of(annotation: Any) -> str:
    """Return what a setting is, in words.

    Examples
    --------
    >>> kind_of(float | None), kind_of(Literal["threads", "dask"])
    ('number', '`threads` or `dask`')
    """
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        *first, last = map(code, get_args(annotation))
        return f"{', '.join(first)} or {last}"
    if get_origin(annotation) in (Union, types.UnionType):
        return kind_of(next(one for one in get_args(annotation) if one is not type(None)))
    return _KINDS[get_origin(annotation) or annotation]


def default_of(field: FieldInfo) -> str:
    """Return the default of a setting; nothing if it has none, or its description says it."""
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value == {}:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _described(fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    for name, field in fields.items():
        extra = field.json_schema_extra
        more = str(extra["page"]) if isinstance(extra, dict) else None
        see = f" See [{_title(more)}](../{more})." if more else ""
        default = default_of(field)
        kind = kind_of(field.annotation)
        yield f"### LIGHTLAKE_{name.upper()}"
        yield f"{prose(field.description or '')}{see}"
        yield f"{kind[0].upper()}{kind[1:]}{f'; default: {code(default)}' if default else ''}."


def _title(path: str) -> str:
    return re.split("[/#]", path)[-1].removesuffix(".md").replace("-", " ")


def settings_page() -> str:
    """Return the page of all settings."""
    from tasks.doctor import endpoints
    from tasks.sources.registry import TABLES_PAGE, table_keys

    public = endpoints(Settings.model_construct())
    keys = [(code(name), code(default_of(one)), prose(one.description or "")) for name, one in table_keys().items()]
    return page(
        _HEAD,
        fenced(_ENV),
        "## Variables",
        *_described(Settings.model_fields),
        _ENDPOINTS,
        table(
            ("variable", "public address"),
            [(code(f"LIGHTLAKE_ENDPOINTS__{one.name.upper()}"), code(one.url)) for one in public],
        ),
        _TABLES.format(page=TABLES_PAGE),
        table(("key", "default", "what it is"), keys),
        _SECRETS,
    )
