"""The schema as written is the schema that a lake has."""

import astropy.units as u
import pyarrow as pa
import pytest

from lake.errors import SchemaError
from lake.model.declared import all_tables
from lake.model.schema import SOURCE_TABLES, TABLES, as_dict, as_markdown


def test_comments_types_and_order_arrive_in_the_catalogue(lake):
    found = lake.sql(
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE database_name = 'lake' ORDER BY table_name, column_index"
    ).to_pylist()
    tables = {row["table_name"] for row in found}
    assert tables >= set(TABLES)
    for name, table in TABLES.items():
        rows = [row for row in found if row["table_name"] == name]
        assert [row["column_name"] for row in rows] == table.names
        assert [row["comment"] for row in rows] == [column.comment for column in table.columns]
        types = ["TIMESTAMP WITH TIME ZONE" if c.type == "TIMESTAMPTZ" else c.type for c in table.columns]
        assert [row["data_type"] for row in rows] == types
    comments = lake.sql("SELECT table_name, comment FROM duckdb_tables() WHERE database_name = 'lake'")
    assert dict(zip(*comments.to_pydict().values(), strict=True))["lightcurves"] == "One row per a measurement"


def test_every_unit_is_one_that_astropy_reads_as_a_vounit():
    units = {column.unit for table in TABLES.values() for column in table.columns if column.unit}
    for unit in units:
        u.Unit(unit, format="vounit")
    assert {"deg", "arcsec", "mas.yr**-1", "d", "mag"} <= units


def test_every_column_is_described_and_keys_and_sorts_are_columns():
    for table in TABLES.values():
        assert all(column.description and column.ucd for column in table.columns), table.name
        assert {*table.key, *table.sort, *([table.partition] if table.partition else [])} <= set(table.names)
    assert all(TABLES[name].partition == "archive" for name in SOURCE_TABLES)


def test_arrow_fields_carry_unit_ucd_and_nullability():
    field = TABLES["sources"].arrow.field("ra")
    assert field.metadata[b"unit"] == b"deg"
    assert not field.nullable
    assert TABLES["sources"].arrow.field("pm_ra").nullable


def test_cast_orders_columns_fills_missing_ones_and_turns_nan_to_null():
    made = TABLES["lightcurves"].cast(pa.table({"mjd": [1.0, 2.0], "flux": [float("nan"), 1e-3]}))
    assert made.schema.equals(TABLES["lightcurves"].arrow)
    assert made["flux"].null_count == 1
    assert made["mag"].null_count == 2


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("colour", ["red"], "no column colour"),
        ("quality", [1.5], "quality is not int64"),
        ("mjd", ["x"], "mjd is not double"),
    ],
)
def test_cast_refuses_what_does_not_fit(column, values, message):
    with pytest.raises(SchemaError, match=message):
        TABLES["lightcurves"].cast(pa.table({column: values}))


def test_documents_name_every_column():
    tables = all_tables().values()
    text = as_markdown(tables)
    assert "## channels" in text
    for table in as_dict(tables)["tables"]:
        assert f"## {table['name']}" in text
        assert all(f"| {column['name']} |" in text for column in table["columns"])
