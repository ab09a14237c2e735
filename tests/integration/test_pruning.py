"""DuckLake's statistics: a range of times reads only the files that it must, and tables without rows have them, too."""

import re

import pyarrow.compute as pc
import pytest
from helpers.granules import ARCHIVE, committed, errors, register
from helpers.older import make_version_6, unsaid

from lake.model.declared import all_tables
from lake.store.pruning import METADATA
from lake.upkeep.compaction import compact


def _files_read(catalog, where):
    cursor = catalog.cursor()
    ((_, plan),) = cursor.execute(f"EXPLAIN ANALYZE SELECT max(flux) FROM lightcurves WHERE {where}").fetchall()
    cursor.close()
    return int(re.search(r"Total Files Read: (\d+)", plan)[1])


@pytest.fixture
def years(anywhere_catalog):
    """Six files of light curves of two archives: those of file k begin at 58000 + k and are three days long."""
    register(anywhere_catalog, range(13))
    for k in range(6):
        committed(anywhere_catalog, [7 + k, k], f"g{k}", archive=(ARCHIVE, "wise")[k % 2])
    return anywhere_catalog


def test_a_range_of_times_reads_only_the_files_that_it_must(years):
    assert unsaid(years) == 0
    assert _files_read(years, "mjd >= 58000") == 6
    assert _files_read(years, "mjd BETWEEN 58003.5 AND 58004") == 3
    assert _files_read(years, f"archive = '{ARCHIVE}' AND mjd BETWEEN 58003.5 AND 58004") == 2
    assert _files_read(years, "flux > 1200") == 1


@pytest.mark.long
def test_files_of_before_are_told_of_by_a_migration_and_by_compact(years):
    schema = f'{METADATA}."{years.location.schema}"'
    for act in (years.create, lambda: compact(years)):
        cursor = years.cursor()
        cursor.execute(f"UPDATE {schema}.ducklake_file_column_stats SET contains_nan = NULL")
        assert _files_read(years, "mjd > 58006") > 2
        cursor.close()
        years.close()
        if act == years.create:
            make_version_6(years)
        act()
        assert unsaid(years) == 0
    assert errors(years) == []


def _statistics(catalog):
    """Rows, and what is said of NULL, NaN, the least and the largest value, by table and column."""
    schema = f'{METADATA}."{catalog.location.schema}"'
    cursor = catalog.cursor()
    rows = cursor.execute(
        "SELECT table_name, column_name, record_count::BIGINT, contains_null::BOOLEAN, contains_nan::BOOLEAN, "
        f"min_value::VARCHAR, max_value::VARCHAR FROM {schema}.ducklake_table_column_stats "
        f"JOIN {schema}.ducklake_table_stats USING (table_id) JOIN {schema}.ducklake_table AS held USING (table_id) "
        f"JOIN {schema}.ducklake_column AS named USING (table_id, column_id) "
        "WHERE held.end_snapshot IS NULL AND named.end_snapshot IS NULL"
    ).fetchall()
    cursor.close()
    return {row[:2]: row[2:] for row in rows}


def _searches(catalog, query):
    """Count DuckLake's questions for statistics of tables in a query."""
    cursor, log = catalog.cursor(), catalog.cursor_outside()
    log.execute("CALL enable_logging('QueryLog', storage = 'memory')")
    cursor.execute(query).fetchall()
    log.execute("CALL disable_logging()")
    asked = "SELECT count(*) FROM duckdb_logs WHERE message LIKE '%ducklake_table_column_stats%'"
    ((count,),) = log.execute(asked).fetchall()
    log.execute("CALL truncate_duckdb_logs()")
    cursor.close()
    return count


COLUMNS = {(table.name, name) for table in all_tables().values() for name in table.names}


def test_a_table_without_rows_is_planned_by_few_questions(anywhere_catalog):
    assert _statistics(anywhere_catalog).keys() >= COLUMNS
    assert _searches(anywhere_catalog, "FROM ledger") <= 3
    # As in lakes that were made before.
    schema = f'{METADATA}."{anywhere_catalog.location.schema}"'
    cursor = anywhere_catalog.cursor()
    for name in ("column_stats", "stats"):
        cursor.execute(
            f"DELETE FROM {schema}.ducklake_table_{name} WHERE table_id IN "
            f"(SELECT table_id FROM {schema}.ducklake_table_stats WHERE next_row_id = 0)"
        )
    cursor.close()
    anywhere_catalog.close()
    assert _searches(anywhere_catalog, "FROM ledger") > 20
    compact(anywhere_catalog)
    assert _statistics(anywhere_catalog).keys() >= COLUMNS
    assert _searches(anywhere_catalog, "FROM ledger") <= 3


def test_statistics_of_no_rows_become_those_of_the_rows(years):
    for act in (lambda: None, lambda: compact(years)):
        act()
        statistics = _statistics(years)
        cursor = years.cursor()
        for name in ("targets", "lightcurves", "sources", "coverage", "ledger"):
            rows = cursor.execute(f"FROM {name}").to_arrow_table()
            assert rows.num_rows
            for column in rows.column_names:
                count, contains_null, _, least, largest = statistics[name, column]
                assert (count, contains_null) == (rows.num_rows, rows[column].null_count > 0), (name, column)
                ends = pc.min_max(rows[column]).as_py()
                if ends["min"] is None:
                    assert (least, largest) == (None, None)
                else:
                    kind = cursor.execute(f"SELECT typeof({column}) FROM {name} LIMIT 1").fetchall()[0][0]
                    told = cursor.execute(f"SELECT ?::{kind}, ?::{kind}", [least, largest]).fetchall()[0]
                    assert told == tuple(ends.values()), (name, column)
        cursor.close()
