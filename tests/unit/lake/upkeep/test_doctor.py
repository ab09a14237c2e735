"""What Lightlake is installed on: each check with what it is to find fault with."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path

import duckdb
import pytest

from lake.errors import CatalogError
from lake.settings import Settings, load_settings
from lake.upkeep.doctor import Check, extensions, guarded, packages, python, settings, workers

NAME = "lightlake-of-a-test"


def one(checks: list[Check]) -> Check:
    (check,) = checks
    return check


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed program that asks for what is not here."""
    folder = tmp_path / f"{NAME.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    asked = (
        "pyarrow>=900,<901",
        "no-such-package[fast]>=2",
        "numpy>=1",
        "h5py>=900; extra == 's3'",
        "no-such-s3; extra == 's3'",
        "pytest>=900; extra == 'test'",
        "no-such-test; extra == 'test'",
    )
    lines = ["Metadata-Version: 2.4", f"Name: {NAME}", "Version: 1.0", "Requires-Python: >=4.1"]
    lines += ["Provides-Extra: s3", "Provides-Extra: test", *(f"Requires-Dist: {one}" for one in asked)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_this_installation_is_sound() -> None:
    assert one(python()).status == "ok"
    told = one(packages(["s3"]))
    assert (told.status, f"duckdb {duckdb.__version__}, " in told.found) == ("ok", True), told
    assert one(extensions(["ducklake", "sqlite_scanner", "postgres_scanner", "httpfs"])).status == "ok"


@pytest.mark.usefixtures("distribution")
def test_a_python_that_is_too_old() -> None:
    check = one(python(NAME))
    assert (check.status, check.hint) == ("fail", "make an environment with Python >=4.1")
    assert sys.executable in check.found


@pytest.mark.usefixtures("distribution")
def test_packages_that_do_not_fit() -> None:
    assert packages([], NAME) == [
        Check(
            "package pyarrow",
            "fail",
            f"{version('pyarrow')} is installed, <901,>=900 is needed",
            "run: pip install 'pyarrow<901,>=900'",
        ),
        Check("package no-such-package", "fail", "not installed", "run: pip install 'no-such-package[fast]>=2'"),
        Check(
            "package h5py", "warn", f"{version('h5py')} is installed, >=900 is needed", "run: pip install 'h5py>=900'"
        ),
    ]
    needed = {check.name: check.status for check in packages(["s3"], NAME)}
    assert (needed["package h5py"], needed["package no-such-s3"]) == ("fail", "fail")
    assert not {"package no-such-test", "package pytest"} & set(needed)


def test_an_extension_that_is_not_there_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "duckdb_extension_httpfs"
    folder = wheel / "extensions" / f"v{duckdb.__version__}"
    folder.mkdir(parents=True)
    (wheel / "__init__.py").touch()
    (folder / "httpfs.duckdb_extension").write_bytes(b"half of it")
    monkeypatch.syspath_prepend(tmp_path)
    damaged, none = extensions(["httpfs", "no_such", "ducklake"])
    assert (damaged.name, damaged.status) == ("extension httpfs", "fail")
    assert "it does not load: " in damaged.found
    assert f"duckdb-extension-httpfs=={duckdb.__version__}" in str(damaged.hint)
    assert (none.name, none.status) == ("extension no_such", "fail")
    assert none.hint == f"pip install duckdb-extension-no-such=={duckdb.__version__}"


def test_settings_that_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LIGHTLAKE_"):
            monkeypatch.delenv(name)
    assert one(settings()).status == "ok"
    monkeypatch.setenv("LIGHTLAKE_URL", "lake")
    monkeypatch.setenv("LIGHTLAKE_ENDPOINTS__ZTF", "/data/ztf")
    monkeypatch.setenv("LIGHTLAKE_TEST_DATA", "/data")
    assert settings() == [Check("settings", "ok", "set: LIGHTLAKE_ENDPOINTS__ZTF, LIGHTLAKE_URL")]


@pytest.mark.parametrize(
    ("name", "status", "meant"),
    [
        ("LIGHTLAKE_WORKRES", "fail", "LIGHTLAKE_WORKERS"),
        ("LIGHTLAKE_ENDPOINT__ZTF", "fail", "LIGHTLAKE_ENDPOINTS__ZTF"),
        ("LIGHTLAKE_ENDPOINTS_GAIA_DATALINK", "fail", "LIGHTLAKE_ENDPOINTS__GAIA_DATALINK"),
        ("LIGHTLAKE_URL__OTHER", "fail", "LIGHTLAKE_URL"),
        ("LIGHTLAKE_QQQQ", "fail", "lightlake help reference/settings"),
        ("LIGHLAKE_CATALOG", "warn", "LIGHTLAKE_CATALOG"),
    ],
)
def test_a_misspelt_setting_is_named_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch, name: str, status: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    check = one(settings())
    assert (check.status, check.found.split()[0]) == (status, name)
    assert meant in str(check.hint).replace(",", "").split() or meant in str(check.hint)


def test_a_file_of_settings_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text("LIGHTLAKE_RETRYS=3\n")
    monkeypatch.setitem(Settings.model_config, "env_file", str(file))
    assert "LIGHTLAKE_RETRYS" in one(settings()).found
    file.write_bytes(b"LIGHTLAKE_URL=\xff\xfe\n")
    check = one(guarded("settings", settings, OSError, ValueError))
    assert (check.status, "UnicodeDecodeError" in check.found) == ("fail", True)


def test_all_wrong_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTLAKE_WORKERS", "0")
    monkeypatch.setenv("LIGHTLAKE_RUNNER", "slurm")
    assert [check.found.partition(" is")[0] for check in settings()] == [
        "LIGHTLAKE_RUNNER='slurm'",
        "LIGHTLAKE_WORKERS='0'",
    ]
    monkeypatch.setenv("LIGHTLAKE_STORAGE_OPTIONS", '{"secret": "xyz')
    check = one(settings())
    assert (check.status, "LIGHTLAKE_STORAGE_OPTIONS is not valid JSON" in check.found) == ("fail", True)
    assert "xyz" not in check.found


def test_more_workers_than_cores_or_memory() -> None:
    assert one(workers(load_settings(workers=1))).status == "ok"
    many = one(workers(load_settings(workers=100_000)))
    assert (many.status, "set LIGHTLAKE_WORKERS to " in str(many.hint)) == ("warn", True)
    assert "GiB" in many.found
    cores = len(os.sched_getaffinity(0))
    assert one(workers(load_settings(workers=cores + 1, runner="processes"))).status == "warn"
    assert one(workers(load_settings(workers=100_000, runner="dask", dask_address="tcp://c:1"))).status == "ok"
    cluster = one(workers(load_settings(workers=100_000, runner="dask", dask_cluster="slurm.yaml")))
    assert (cluster.status, cluster.found) == ("ok", "100000 of the Dask cluster of slurm.yaml")
    assert one(workers(load_settings(workers=100_000, dask_address="tcp://c:1"))).status == "warn"


def test_a_check_that_breaks_says_so_by_name() -> None:
    def breaks() -> list[Check]:
        raise OSError(5, "the disk is gone")

    check = one(guarded("disk", breaks, OSError))
    assert (check.name, check.status) == ("disk", "fail")
    assert "OSError: [Errno 5] the disk is gone" in check.found
    with pytest.raises(OSError, match="gone"):
        guarded("disk", breaks, ValueError)

    def refuses() -> list[Check]:
        raise CatalogError("it is so", hint="do this")

    assert guarded("disk", refuses) == [Check("disk", "fail", "it is so", "do this")]
