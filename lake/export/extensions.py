"""Forms of files with a table, and the extensions that say them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lake.errors import ConfigurationError

Form = Literal["csv", "json", "parquet", "vot", "fits", "ecsv"]

EXTENSIONS: Mapping[Form, tuple[str, ...]] = {
    "csv": (".csv",),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "vot": (".vot", ".xml"),
    "fits": (".fits", ".fit"),
    "ecsv": (".ecsv",),
}
KNOWN = tuple(suffix for suffixes in EXTENSIONS.values() for suffix in suffixes)
# They can be printed; the others are bytes.
TEXT_FORMS = ("csv", "json", "vot", "ecsv")


def form_of(path: Path) -> Form:
    """Return the form that a file's extension says.

    Raises
    ------
    ConfigurationError
        If no form has this extension.

    Examples
    --------
    >>> form_of(Path("rows.fits"))
    'fits'
    """
    for form, suffixes in EXTENSIONS.items():
        if path.suffix.lower() in suffixes:
            return form
    raise ConfigurationError(
        f"{path.name} does not say what form of table it is to be", hint=f"extensions are {', '.join(KNOWN)}"
    )
