"""Units of an answer's columns, by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from lake.export.units import OTHER_UNITS, column_of
from lake.model.declared import declared_tables
from lake.model.schema import TABLES

FLOATING = ("FLOAT", "DOUBLE")


def test_sources_give_names_of_the_core_other_units_only_where_they_are_known_to() -> None:
    core, declared = (
        [(column.name, column.unit) for table in tables.values() for column in table.columns if column.type in FLOATING]
        for tables in (TABLES, declared_tables())
    )
    other = {name for name, unit in declared if name in dict(core) and (name, unit) not in core}
    assert other == set(OTHER_UNITS)
    assert {column_of(name, pa.float64()) for name in OTHER_UNITS} == {None}


def test_an_answer_of_the_core_needs_no_source(template: Path) -> None:
    code = (
        "import sys, lake; opened = lake.open(sys.argv[1]); "
        "rows = opened.sql('SELECT mjd, name, 1, mjd + 1 FROM target_lightcurves'); "
        "print(rows.schema.field('mjd').metadata[b'unit'].decode()); "
        "print(*{name.split('.')[0] for name in sys.modules} & {'tasks', 'pandas', 'astropy', 'httpx', 'prefect'})"
    )
    done = subprocess.run([sys.executable, "-c", code, template], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["d"]
