"""A range of times reads only the files that it must, whoever wrote them."""

import re

import pytest
from helpers.granules import ARCHIVE, committed, errors, register
from helpers.older import make_version_6, unsaid

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
