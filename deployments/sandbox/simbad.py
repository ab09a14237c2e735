"""Stand-in for SIMBAD's TAP service: the tables `basic` and `ident`, as far as astroquery.simbad asks for names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from deployments.sandbox.simbad_objects import KNOWN, Known
from deployments.sandbox.tap import Job, TapService

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

TAP_PATH = "/simbad/sim-tap"

OBJECTS: tuple[tuple[str, ...], ...] = (
    ("NGC  6833", "PN G082.5+11.3", "PK 082+11 1"),
    ("HD 209458", "V* V376 Peg", "NAME Osiris"),
    ("V* V471 Tau", "V471 Tau", "BD+16 516", "WD 0347+171"),
    ("* alf Cen", "alpha Cen", "NAME Rigil Kentaurus"),
    ("SK -71 45", "HD 269927"),
    ("SK -67 45", "SK 7145"),
    ("4C -01.61", "PKS 2349-01"),
    ("2MASS J04372999-5228461", "GJ 1234"),
    ("V* AD Leo", "AD Leo", "GJ 388"),
)
"""Objects with their names, the main one first, spelt as the service spells them."""


class NameService(TapService):
    """It takes names however they are spaced, in any case; but Bayer's letters, such as k Tau and K Tau, differ."""

    def _query(self, params: Mapping[str, str], files: Mapping[str, bytes], job: Job | None = None) -> bytes:
        query = re.sub(
            r'(TAP_UPLOAD\.\w+\."?\w+"?) = (ident_upload\."?id"?)',
            r"same_name(\1) = same_name(\2)",
            params.get("QUERY", ""),
            flags=re.IGNORECASE,
        )
        return super()._query({**params, "QUERY": query}, files, job)


def mount(sandbox: Sandbox, targets: Iterable[str] = (), objects: Sequence[Sequence[str]] = OBJECTS) -> NameService:
    """Serve objects, and those that some targets of observations are: their names have a hyphen less."""
    known = [*objects, *([name.replace("-B", " B", 1)] for name in dict.fromkeys(targets) if name.startswith("QSO-B"))]
    return serve(sandbox, known, KNOWN)


def serve(sandbox: Sandbox, objects: Sequence[Sequence[str]], known: Sequence[Known] = ()) -> NameService:
    """Serve objects, each by its names, the main one first, at places of no meaning; and known ones where they are."""
    objects = [*(one.names for one in known), *objects]
    n = len(objects)
    number = np.arange(1, n + 1, dtype=np.int64)
    basic: dict[str, Any] = {
        "oid": number,
        "main_id": pa.array([names[0] for names in objects], pa.string()),
        "ra": np.linspace(0.0, 359.0, n),
        "dec": np.linspace(-80.0, 80.0, n),
        **{f"coo_err_{name}": np.full(n, 0.1) for name in ("maj", "min", "angle")},
        "coo_wavelength": pa.array(["O"] * n, pa.string()),
        "coo_bibcode": pa.array(["2020yCat.1350....0G"] * n, pa.string()),
    }
    basic |= _columns_of(known, basic)
    ident = [(names, int(oid)) for names, oid in zip(objects, number, strict=True)]
    table = pa.table(
        {
            "id": pa.array([name for names, _ in ident for name in names], pa.string()),
            "oidref": pa.array([oid for names, oid in ident for _ in names], pa.int64()),
        }
    )
    service = NameService(sandbox, TAP_PATH, {"basic": pa.table(basic), "ident": table})
    service._db.execute(
        "CREATE MACRO same_name(name) AS CASE WHEN regexp_matches(name, '^([*] +|V[*] +)?[A-Za-z] +[A-Z][a-z][a-z]$') "
        "THEN regexp_replace(replace(name, ' ', ''), '^(V?[*])', '') ELSE upper(replace(name, ' ', '')) END"
    )
    return service


def _columns_of(known: Sequence[Known], basic: Mapping[str, Any]) -> dict[str, pa.Array]:
    """Return the columns that known objects have values in; the others follow them, without."""
    n, kinds = len(basic["oid"]), {"otype": pa.string(), "rvz_type": pa.string()}
    columns = {}
    for name in ("ra", "dec", "otype", "pmra", "pmdec", "rvz_redshift", "rvz_type", "coo_err_maj"):
        rest = basic[name].tolist() if name in basic else [None] * n
        columns[name] = pa.array(
            [*(getattr(one, name) for one in known), *rest[len(known) :]], kinds.get(name, pa.float64())
        )
    return columns
