"""Handles read; writers refuse before they do anything where they may not write; files follow umask and group."""

import os
import resource  # noqa: F401  # as the last lines of imports
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb
import pytest
import scipy.spatial  # noqa: F401
from helpers.granules import committed, content, count, errors, register

import flows.cli  # noqa: F401
import lake.upkeep.maintenance
from lake.cli import app
from lake.commit.intents import PUBLISHING, Intent
from lake.errors import CatalogError, ReadOnly
from lake.query import Lake
from lake.settings import load_settings
from lake.store.access import last_written
from lake.store.catalog import Catalog
from lake.store.connection import connect, extension_file
from lake.store.storage import Storage
from lake.upkeep.checks import catalogue
from lake.upkeep.compaction import compact
from lake.upkeep.maintenance import _verify, verify
from tasks.samples import files  # noqa: F401
from tasks.sources import registry as archives  # noqa: F401  # what commands import: another user may not be able to

NOBODY = 65534
GROUP = 4242  # of nobody here
pytestmark = pytest.mark.usefixtures("on_disk")


def _one_line(error):
    text = str(error.value)
    assert "\n" not in text
    assert error.value.hint
    return text


@contextmanager
def as_user(user: int, group: int = NOBODY) -> Iterator[None]:
    """Be another user for a while; only root may."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def place(monkeypatch):
    """A folder that other users can reach; pytest's own are closed to them."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        parent = Path(folder) / "tmp"
        parent.mkdir()
        parent.chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", str(parent))
        yield Path(folder)


@pytest.fixture
def own(template, place):
    """A lake of root's that others may read, with rows."""
    root = place / "lake"
    shutil.copytree(template, root)
    settings = load_settings(url=str(root))
    catalog = Catalog(Storage(root), settings)
    register(catalog, range(4))
    committed(catalog, range(4))
    catalog.close()
    return root


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_reader_without_rights_asks_and_spills_elsewhere_and_a_writer_is_refused(own, monkeypatch):
    before = (own / "catalog.sqlite").read_bytes()
    with as_user(NOBODY):
        with Lake(own) as lake:
            assert lake.light_curve("T1").num_rows == 6
            assert errors(lake.catalog) == []
            spill = lake.sql("SELECT current_setting('temp_directory') AS t")["t"][0].as_py()
            assert spill.startswith(tempfile.gettempdir())
            # More than fits into memory.
            cursor = lake.catalog.cursor()
            cursor.execute("SET memory_limit = '40MB'; SET threads = 1; SET preserve_insertion_order = false")
            cursor.execute("CREATE TEMP TABLE much AS SELECT hash(range) AS a, range::VARCHAR AS b FROM range(1000000)")
            assert cursor.execute("SELECT count(*) FROM (FROM much ORDER BY a)").fetchall() == [(1_000_000,)]
            cursor.close()
            with pytest.raises(ReadOnly), lake.catalog.lock():
                pass
        with pytest.raises(ReadOnly) as error:
            Lake(own, writable=True)
        told = _one_line(error)
        assert str(own / "catalog.sqlite") in told
        assert "root" in told
        assert "mode 0644" in told
        catalog = Catalog(Storage(own), load_settings(url=str(own)))
        for act in (
            catalog.create,
            catalog.lock().__enter__,
            catalog.claim("tile").__enter__,
            lambda: register(catalog, range(9)),
            lambda: compact(catalog),
            lambda: app(["targets", "add", "/nowhere.csv", "--sample", "a", "--lake", str(own)]),
            lambda: app(["compact", "--lake", str(own)]),
            lambda: app(["pull", "gaia", "--lake", str(own)]),
            lambda: app(["virac", str(own), "--lake", str(own)]),
            lambda: app(["rxte", "--lake", str(own)]),
        ):
            with pytest.raises((ReadOnly, CatalogError)) as error:
                act()
            assert isinstance(error.value, ReadOnly)
        checks = catalogue(Storage(own), load_settings(url=str(own)), 1.0)
        assert [check.status for check in checks if check.name == "catalogue"] == ["ok", "warn"]
    assert (own / "catalog.sqlite").read_bytes() == before
    assert not list(own.glob("catalog.sqlite-*"))


def test_verify_by_one_who_only_reads_takes_no_change_for_damage(own, monkeypatch, request):
    """A reader without rights sees a copy of the catalogue, and keeps nobody from writing."""
    writer = Catalog(Storage(own), load_settings(url=str(own)))
    folder = own / "data/main/lightcurves/archive=ztf"
    looks = []
    reader = Catalog(Storage(own), load_settings(url=str(own)), read_only=True)
    request.addfinalizer(reader.close)

    def checks():
        with as_user(NOBODY):
            found = verify(reader, quick=True)
        return [(finding.check, finding.is_error) for finding in found]

    def look(*arguments, **more):
        found = _verify(*arguments, **more)
        looks.append([finding.check for finding in found if finding.is_error])
        return found

    monkeypatch.setattr(lake.upkeep.maintenance, "_verify", look)
    assert checks() == []
    committed(writer, [5, 6], "g1")
    register(writer, range(4, 7))
    assert ("changes", False) in (found := checks())  # the copy is from before
    assert not any(wrong for _, wrong in found)
    compact(writer)
    assert not any(wrong for _, wrong in checks())
    assert [set(wrong) for wrong in looks[-2:]] == [{"files"}, set()]  # files of then are gone

    # A commit that is just now showing its files, and a compaction that is writing its own.
    shown = next(folder.glob("*.parquet"))
    intent = writer.storage.staging / PUBLISHING / "1.json"
    Intent(intent, 1, ["lightcurves/archive=ztf/g2-1.parquet"]).write()
    for name in ("g2-1.parquet", "ducklake-1.parquet", "stray.parquet"):
        (folder / name).write_bytes(shown.read_bytes())
    reader.close()
    later = writer.location.target
    os.utime(later, (last_written(Path(later)) + 60,) * 2)  # as if somebody had written it since
    assert [check for check, wrong in checks() if wrong] == ["orphans"]
    (folder / "stray.parquet").unlink()
    assert ("changes", False) in (found := checks())
    assert not any(wrong for _, wrong in found)
    intent.unlink()
    assert [check for check, wrong in checks() if wrong] == ["orphans"] * 2
    writer.close()


def test_each_thing_that_a_writer_needs_is_looked_at(own):
    for path in (own, *own.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    with as_user(NOBODY):
        Lake(own, writable=True).close()
    for name in ("", "catalog.lock", "catalog.sqlite", "staging", "data/main/sources", "data/main/sources/archive=ztf"):
        spoilt = own / name
        before, mode = _mode(spoilt), 0o755 if spoilt.is_dir() else 0o644
        spoilt.chmod(mode)
        with as_user(NOBODY):
            with pytest.raises(ReadOnly) as error:
                Lake(own, writable=True)
            assert f"{mode:04o}" in _one_line(error)
            assert str(spoilt) in str(error.value)
            with Lake(own) as lake:
                assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [4]
        spoilt.chmod(before)


def test_a_lake_on_a_disk_that_is_mounted_for_reading(own, monkeypatch):
    # No mount is possible in most containers: what the system says of one, instead.
    class Mounted:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _: Mounted())
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK)
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    with pytest.raises(ReadOnly) as error:
        Lake(own, writable=True)
    assert "mounted for reading only" in _one_line(error)
    with Lake(own) as lake:
        assert lake.light_curve("T1").num_rows == 6


def test_a_group_shares_a_lake(place):
    shared = place / "shared"
    shared.mkdir()
    shutil.chown(shared, group=GROUP)
    shared.chmod(0o2775)
    settings = load_settings(url=str(shared / "lake"))
    with umask(0o002):
        catalog = Catalog(Storage(shared / "lake"), settings)
        with as_user(NOBODY, GROUP):
            catalog.create()
            register(catalog, range(4))
            with catalog.claim("tile", strict=True):
                pass
            with closing(catalog.cursor()) as cursor:
                cursor.execute("BEGIN; FROM targets")
                beside = list((shared / "lake").glob("catalog.sqlite*"))
                modes = {path: (_mode(path) & 0o060, path.stat().st_gid) for path in beside}
                cursor.execute("ROLLBACK")
            assert len(modes) == 3  # with SQLite's log, while it is open
            assert set(modes.values()) == {(0o060, GROUP)}
            for path in (
                shared / "lake/catalog.sqlite",
                shared / "lake/catalog.lock",
                *(shared / "lake/claims").iterdir(),
            ):
                assert _mode(path) & 0o060 == 0o060, path
                assert path.stat().st_gid == GROUP
            catalog.close()
        with as_user(NOBODY - 1, GROUP):
            other = Catalog(Storage(shared / "lake"), settings)
            other.open()
            committed(other, range(4))
            other.close()
        with as_user(NOBODY, GROUP):
            committed(catalog, range(2, 6), "g1")
            assert count(catalog, "sources") == 6
            catalog.close()


def test_init_by_the_owner_opens_a_catalogue_of_sqlites_own_mode_to_the_group(place):
    root = place / "lake"
    with umask(0o002):
        catalog = Catalog(Storage(root), load_settings(url=str(root)))
        catalog.create()
        catalog.close()
        assert _mode(root / "catalog.sqlite") == 0o664
        (root / "catalog.sqlite").chmod(0o644)  # what earlier versions left
        catalog.create()
        catalog.close()
    assert _mode(root / "catalog.sqlite") == 0o664
    (root / "catalog.sqlite").chmod(0o600)
    root.chmod(0o755)  # not shared: left alone
    catalog.create()
    catalog.close()
    assert _mode(root / "catalog.sqlite") == 0o600


@pytest.fixture(scope="module")
def filled(template, tmp_path_factory):
    """A lake with rows, for questions only."""
    root = tmp_path_factory.mktemp("readonly") / "lake"
    shutil.copytree(template, root)
    catalog = Catalog(Storage(root), load_settings(url=str(root)))
    register(catalog, range(8))
    committed(catalog, range(8))
    committed(catalog, dict.fromkeys(range(4), 2), "g1")
    catalog.close()
    return root


WRITES = (
    "DELETE FROM targets",
    "UPDATE targets SET name = 'x'",
    "INSERT INTO labels SELECT * FROM labels",
    "DROP TABLE targets",
    "ALTER TABLE targets DROP COLUMN name",
    "CREATE TABLE mine (a INTEGER)",
    "CREATE OR REPLACE VIEW fornax AS SELECT 1 AS a",
    "COMMENT ON TABLE targets IS 'x'",
    "TRUNCATE targets",
    "CHECKPOINT lake",
    "DELETE FROM __ducklake_metadata_lake.ducklake_data_file",
    "CALL ducklake_expire_snapshots('lake', older_than => now())",
    "CALL ducklake_cleanup_old_files('lake', cleanup_all => true)",
    "FROM ducklake_delete_orphaned_files('lake', cleanup_all => true)",
    "CALL ducklake_merge_adjacent_files('lake')",
    "CALL ducklake_rewrite_data_files('lake', delete_threshold => 0)",
    "CALL ducklake_flush_inlined_data('lake')",
    "CALL ducklake_set_option('lake', 'parquet_compression', 'snappy')",
    "CALL lake.set_option('parquet_compression', 'snappy')",
    "FROM \"ducklake_cleanup_old_files\" ('lake')",
    "CALL postgres_execute('__ducklake_metadata_lake', 'COMMIT; DROP TABLE x')",
)


def test_nothing_writes_through_a_handle(filled, capsys):
    def tree():
        return {path: path.read_bytes() for path in filled.rglob("*.parquet")}

    before = tree()
    with Lake(filled) as lake:
        rows = content(lake.catalog)
        for statement in WRITES:
            with pytest.raises(ReadOnly) as error:
                lake.sql(statement)
            assert "reading only" in _one_line(error), statement
            assert "targets add" in str(error.value)
        lake.sql("CREATE TEMP TABLE mine AS SELECT 1 AS a")  # one's own is one's own
        with pytest.raises(ReadOnly):
            register(lake.catalog, range(9))
    with pytest.raises(ReadOnly):
        app(["sql", "DELETE FROM targets", "--lake", str(filled)])
    with Lake(filled) as lake:
        assert content(lake.catalog) == rows
    assert tree() == before


def test_readers_and_a_writer_do_not_disturb_each_other(catalog, settings):
    register(catalog, range(8))
    with Lake(settings.url, settings) as lake:
        committed(catalog, range(4))
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [4]
        committed(catalog, range(4, 8), "g1")
        catalog.close()  # the last that writes; the reader goes on, and is followed by others
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [8]
    with Lake(settings.url, settings) as lake:
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [8]
    committed(catalog, range(2), "g2")


@pytest.mark.parametrize("write", [False, True])
def test_attach_is_for_reading_unless_one_means_it(filled, tmp_path, capsys, write):
    root = shutil.copytree(filled, tmp_path / "copy")
    assert app(["attach", "--lake", str(root), *(["--write"] if write else [])], result_action="return_value") == 0
    out, err = capsys.readouterr()
    assert ("bypass" in err) == write == out.startswith("-- Warning")
    with duckdb.connect(config={"allow_unsigned_extensions": False}) as client:
        for line in out.splitlines():
            if line.startswith("INSTALL"):
                name = line.split()[1].rstrip(";")
                client.execute(f"LOAD '{extension_file({'sqlite': 'sqlite_scanner'}.get(name, name))}'")
            else:
                client.execute(line)
        if write:
            client.execute("DELETE FROM labels")
        else:
            with pytest.raises(duckdb.InvalidInputException, match="read-only"):
                client.execute("DELETE FROM labels")


def test_a_writer_spills_into_the_lake(catalog):
    connection = connect(catalog.settings, catalog.storage, "sqlite")
    spill = connection.execute("SELECT current_setting('temp_directory')").fetchall()[0][0]
    assert Path(spill).parent == Path(catalog.storage.staging)
    connection.close()


def test_a_reader_after_a_writer_that_died(catalog, settings):
    """What it had committed is still in SQLite's log, which a reader may have to bring in order."""
    register(catalog, range(4))
    committed(catalog, range(2))
    database = Path(catalog.location.target)
    with closing(catalog.cursor()) as cursor:
        cursor.execute("BEGIN; FROM targets")  # keeps the log
        other = Catalog(catalog.storage, settings)
        committed(other, range(2, 4), "g1")
        other.close()
        left = {end: database.with_name(database.name + end).read_bytes() for end in ("", "-wal")}
        cursor.execute("ROLLBACK")
    catalog.close()
    assert left["-wal"]
    for end, content_ in left.items():
        database.with_name(database.name + end).write_bytes(content_)
    database.with_name(f"{database.name}-shm").unlink(missing_ok=True)
    with Lake(settings.url, settings) as lake:
        assert lake.sql("SELECT count(*) AS n FROM sources")["n"].to_pylist() == [4]
        assert errors(lake.catalog) == []
