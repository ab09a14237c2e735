"""A confined handle: strangers' SQL asks the lake, and reaches nothing else."""

import http.server
import shutil
import threading
from contextlib import nullcontext

import pyarrow as pa
import pytest
from helpers.granules import committed, register

from lake.cli import app
from lake.errors import ConfigurationError, LightlakeError
from lake.query import Lake
from lake.settings import load_settings
from lake.store.catalog import Catalog
from lake.store.storage import Storage

pytestmark = pytest.mark.usefixtures("on_disk")


@pytest.fixture(scope="module")
def root(template, tmp_path_factory):
    """A lake with rows; nothing here may change a byte of it."""
    root = tmp_path_factory.mktemp("confined") / "lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    register(catalog, range(8))
    committed(catalog, range(8))
    catalog.close()
    return root


@pytest.fixture(scope="module")
def service(root):
    """The handle of a service."""
    with Lake(root, load_settings(url=str(root), duckdb_memory="200MB", query_timeout_s=2), confined=True) as lake:
        yield lake


@pytest.fixture(scope="module")
def asked():
    """A web server, and what was asked of it."""
    paths = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", paths
        server.shutdown()
        thread.join()


def test_it_answers_what_a_reader_asks(service, root):
    with Lake(root) as plain:
        for query in (
            "FROM targets ORDER BY ALL",
            "SELECT name, band, count(*) AS n, max(flux) AS f FROM target_lightcurves GROUP BY ALL ORDER BY ALL",
            "WITH bright AS (SELECT * FROM lake.main.lightcurves WHERE flux > 300) SELECT count(*) FROM bright",
            "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t WHERE a < 9) SELECT sum(a) FROM t",
            "SELECT count(*) FROM cone(10.0, -30.0, 3600) SEMI JOIN (FROM lightcurves) USING (source_id)",
            "SELECT list_transform([1, 2], lambda x: x + 1) AS a, unnest(range(3)) AS b",
            "PIVOT (SELECT band, good FROM lightcurves) ON band IN ('g', 'r') USING count(*) ORDER BY good",
            "DESCRIBE targets",
            "SUMMARIZE targets",
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'targets' ORDER BY ALL",
            "SELECT separation_arcsec(1, 2, 3, 4) AS s, approx_quantile(flux, 0.5) FROM lightcurves",
            "FROM range(3) CROSS JOIN generate_series(2)",
        ):
            assert service.sql(query).to_pylist() == plain.sql(query).to_pylist(), query
        assert service.sql("FROM targets WHERE name = ?", ["T1"]).num_rows == 1
        assert service.light_curve("T1", form="pandas").equals(plain.light_curve("T1", form="pandas"))
        assert service.cone(10.0, -30.0, 60).num_rows == plain.cone(10.0, -30.0, 60).num_rows > 0
        assert service.targets().num_rows == 8


ATTACKS = (
    # files
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('{root}/catalog.sqlite')",
    "FROM '/etc/passwd'",
    "FROM sqlite_scan('{root}/catalog.sqlite', 'ducklake_metadata')",
    "FROM '{root}/catalog.sqlite'",
    "FROM read_parquet('{root}/data/main/*/*.parquet')",
    "FROM glob('/**')",
    "FROM read_csv('/dev/stdin')",
    "SELECT (SELECT max(content) FROM read_text('/etc/passwd')) AS a",
    "FROM read_duckdb('/tmp/x')",
    "WITH t AS (FROM read_text('/etc/hostname')) FROM t",
    "SELECT 1 WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "FROM \"read_text\"('/etc/passwd')",
    "FROM system.main.read_text('/etc/passwd')",
    "FROM READ_TEXT('/etc/passwd')",
    "FROM targets JOIN LATERAL (FROM read_text(targets.name)) ON true",
    "DESCRIBE FROM read_text('/etc/passwd')",
    # network
    "FROM read_csv('{http}/a.csv')",
    "FROM '{http}/b.parquet'",
    "FROM read_parquet('s3://elsewhere/x.parquet')",
    "FROM postgres_scan('host=127.0.0.1', 'public', 'x')",
    "CALL postgres_query('__ducklake_metadata_lake', 'x')",
    # writing
    "COPY (SELECT 1 AS a) TO '{root}/data/main/targets/x.parquet'",
    "COPY targets TO '/tmp/stolen.csv'",
    "EXPORT DATABASE '/tmp/stolen'",
    "DELETE FROM targets",
    "CREATE TABLE x (a INTEGER)",
    "CREATE TEMP TABLE x AS FROM targets",
    "CREATE MACRO cone(a) AS TABLE FROM read_text(a)",
    "CREATE TEMP VIEW targets AS SELECT 1 AS a",
    "FROM ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "CALL ducklake_set_option('lake', 'a', 'b')",
    "FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
    "DELETE FROM __ducklake_metadata_lake.ducklake_table",
    # the program itself
    "ATTACH ':memory:' AS x",
    "ATTACH '{root}/catalog.sqlite' AS x (TYPE sqlite)",
    "DETACH lake",
    "USE memory",
    "INSTALL spatial",
    "LOAD httpfs",
    "SET memory_limit = '9TB'",
    "RESET memory_limit",
    "PRAGMA memory_limit = '9TB'",
    "SET GLOBAL enable_external_access = true",
    "CALL enable_logging(storage = 'file', storage_path = '/tmp/x')",
    "FROM enable_logging(storage = 'file', storage_path = '/tmp/x')",
    "PRAGMA enable_profiling",
    "FROM enable_profiling()",
    "CREATE SECRET (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "BEGIN",
    "EXPLAIN ANALYZE FROM targets",
    "CALL force_checkpoint()",
    "PREPARE x AS SELECT 1",
    "EXECUTE x",
    "VACUUM",
    "SET VARIABLE x = 1",
    "FROM truncate_duckdb_logs()",
    # what it knows
    "SELECT getenv('HOME') AS a",
    "FROM duckdb_secrets()",
    "FROM duckdb_databases()",
    "FROM duckdb_databases",
    "FROM pragma_database_list",
    "FROM duckdb_settings()",
    "SELECT current_setting('temp_directory') AS a",
    "FROM duckdb_logs",
    "FROM __ducklake_metadata_lake.ducklake_metadata",
    "FROM __ducklake_metadata_lake.main.ducklake_metadata",
    "SHOW DATABASES; FROM x",
    "WITH duckdb_databases AS (SELECT 1 AS a) FROM duckdb_databases",
    "FROM stranger",
    "SELECT write_log('x') AS a",
    "SELECT (WITH duckdb_databases AS (SELECT 1 AS a) SELECT max(a) FROM duckdb_databases) AS b FROM duckdb_databases",
    # ways around the check
    "FROM query('FROM read_text(''/etc/passwd'')')",
    "FROM query_table('duckdb_databases')",
    "SELECT 1; SELECT 2",
    "FROM json_execute_serialized_sql('x')",
    "SELECT 1 AS a; DELETE FROM targets",
    "",
    "not sql",
    ";",
    "PIVOT targets ON name USING count(*)",
    "FROM arrow_scan(1, 2, 3)",
    "FROM python_map_function(1)",
)


def test_it_gives_nothing_else(service, root, asked):
    http_url, requests = asked
    stranger = pa.table({"secret": ["of the caller"]})  # noqa: F841  # DuckDB finds tables in callers' frames
    before = {path: path.stat().st_mtime_ns for path in (root / "data").rglob("*")}
    for attack in ATTACKS:
        query = attack.replace("{root}", str(root)).replace("{http}", http_url)
        with pytest.raises(LightlakeError) as error:
            pytest.fail(f"{query}: {service.sql(query).to_pylist()}")
        assert "\n" not in str(error.value), query
    assert not requests
    assert {path: path.stat().st_mtime_ns for path in (root / "data").rglob("*")} == before
    assert service.sql("SELECT count(*) AS n FROM targets")["n"].to_pylist() == [8]


def test_the_second_wall_holds_by_itself(service, root, asked):
    """What a query that got past the check could do is little: DuckDB itself is shut."""
    cursor = service.catalog.cursor()
    for attack in (
        "FROM read_text('/etc/passwd')",
        f"FROM read_csv('{asked[0]}/a.csv')",
        "COPY (SELECT 1) TO '/tmp/stolen.csv'",
        "FROM glob('/etc/*')",
        "SET memory_limit = '9TB'",
        "SET enable_external_access = true",
        "INSTALL spatial",
        "LOAD '/tmp/x.duckdb_extension'",
        "FROM duckdb_secrets(redact = false)",
        "ATTACH '/tmp/x.db' AS x",
        "SET lock_configuration = false",
        "DELETE FROM targets",
    ):
        with pytest.raises(Exception, match=r"(?i)permission|locked|disabled|read-only|cannot"):
            cursor.execute(attack)
    cursor.close()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM range(1000000000000000000) WHERE hash(range) = 1",
        pytest.param(
            "WITH RECURSIVE t AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t",
            marks=pytest.mark.long,
        ),
        pytest.param("SELECT sleep_ms(60000) AS a", marks=pytest.mark.long),
    ],
)
def test_an_endless_query_is_stopped(service, query):
    with pytest.raises(ConfigurationError, match="longer than 2 s") as error:
        service.sql(query)
    assert "LIGHTLAKE_QUERY_TIMEOUT_S" in error.value.hint
    assert service.sql("SELECT 1 AS a")["a"].to_pylist() == [1]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT list(range) AS a FROM range(100000000)",
        "SELECT length(repeat('x', 4000000000)) AS a",
        "SELECT length(printf('%1000000000d', 1)) AS a",
        "SELECT len(range(100000000)) AS a",
        "SELECT len(range(1000 * 1000 * 1000)) AS a",
        "WITH RECURSIVE t AS (SELECT 'x' AS a UNION ALL SELECT a || a FROM t) SELECT max(length(a)) FROM t",
        "SELECT hash(range)::VARCHAR || hash(range + 1)::VARCHAR AS a FROM range(1000000000)",
    ],
)
def test_a_huge_query_is_refused(service, query):
    with pytest.raises(ConfigurationError) as error:
        service.sql(query)
    assert "\n" not in str(error.value)
    assert service.sql("SELECT 1 AS a")["a"].to_pylist() == [1]


def test_queries_that_parsers_choke_on(service):
    for query, refused in (
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, None),
        ("SELECT 1" + " + 1" * 24000, "depth"),
        ("SELECT 1 --" + "x" * 100_000, "longer than"),
    ):
        with pytest.raises(ConfigurationError, match=refused) if refused else nullcontext():
            service.sql(query)
        assert service.sql("SELECT 1 AS a")["a"].to_pylist() == [1]


def test_it_never_writes_and_the_command_has_it_too(root):
    with pytest.raises(ConfigurationError):
        Lake(root, confined=True, writable=True)
    with pytest.raises(ConfigurationError, match="read_text"):
        app(["sql", "FROM read_text('/etc/passwd')", "--confined", "--lake", str(root)])
