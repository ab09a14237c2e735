"""Every service against every fault: told in one line, tried again where that may help, and never half an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.faults import FAULTS, REFUSALS, SPOILT, TOLD

from deployments.sandbox import hcv as sandbox_hcv
from deployments.sandbox import hst as sandbox_hst
from deployments.sandbox import icecube as sandbox_icecube
from deployments.sandbox import simbad as sandbox_simbad
from deployments.sandbox import tess_kepler as sandbox_mast
from deployments.sandbox import virac_tap as sandbox_eso
from deployments.sandbox.gaia import DATALINK_PATH
from deployments.sandbox.gaia import TAP_PATH as GAIA_TAP
from deployments.sandbox.heasarc import URL_PATH as HEASARC_TAP
from deployments.sandbox.mast_caom import TAP_PATH as MAST_TAP
from deployments.sandbox.server import Sandbox
from lake.errors import ArchiveError
from lake.model.schema import TABLES
from lake.science.sky import hpx29
from lake.settings import Settings, load_settings
from lake.settings import settings as settings_of_process
from tasks.services.download import download
from tasks.services.store import open_store
from tasks.services.tap import Service
from tasks.sources import heasarc
from tasks.sources.base import FetchResult, Granule
from tasks.sources.gaia.archive import STRUCTURES
from tasks.sources.hst_timetag import find as hst
from tasks.sources.hst_timetag.files import Files, pieces_of
from tasks.sources.hst_timetag.names import ask_simbad
from tasks.sources.registry import REGISTRY
from tasks.sources.tess_kepler.mast_tap import Caom, tap_url
from tasks.sources.virac.tap import SOURCES

PLACES = [((7.0 + 31 * n) % 360, 60 * np.sin(n)) for n in range(4)]
CONTENT = b"0123456789" * 3000

Ask = Callable[[Sandbox, Settings], object]


@dataclass(frozen=True)
class Asked:
    """One kind of request to one service.

    Parameters
    ----------
    path
        Where the fault is.
    endpoint
        Name in `Sandbox.endpoints`, or path, of what the error names.
    archive
        Whom the error names.
    ask
        Makes the request; returns something that can be compared.
    answer
        What is expected: json, votable, file, zip or job.
    times
        How often in a row: a request may be made of several, or be made again after a refusal.
    less
        Faults that it cannot meet.
    """

    path: str
    endpoint: str
    archive: str
    ask: Ask
    answer: str
    times: int = 1
    less: tuple[str, ...] = ()


def _granule(archive: str) -> Granule:
    ra, dec = (np.array(values, float) for values in zip(*PLACES, strict=True))
    pixel = hpx29(ra, dec)
    targets = TABLES["targets"].cast(pa.table({"target_id": pixel, "ra": ra, "dec": dec, "hpx29": pixel}))
    source = REGISTRY[archive]
    return Granule(archive, source.release, source.with_defaults(None), targets)


def _fetched(archive: str, box: Sandbox, settings: Settings) -> object:
    result: FetchResult = REGISTRY[archive].fetch(_granule(archive), settings)
    tables = (getattr(result, name) for name in ("sources", "matches", "lightcurves"))
    return [sorted(map(repr, table.to_pylist())) for table in tables]  # a missing value is NaN, which equals nothing


def _file(box: Sandbox, settings: Settings) -> object:
    def check(path: Path) -> str | None:
        return None if path.read_bytes() == CONTENT else "it is another"

    return download(box.url("/plain/file.bin"), "madeup", settings, check=check).read_bytes()


def _tap(box: Sandbox, settings: Settings, *, asynchronous: bool = False) -> object:
    service = Service("madeup", box.endpoints["heasarc"], settings.timeout_s, settings.task_timeout_s)
    return service.query("SELECT name, ra FROM saxgrbmgrb", maxrec=10_000, asynchronous=asynchronous).to_pylist()


def _eso(box: Sandbox, settings: Settings) -> object:
    service = Service("virac", box.endpoints["virac"], settings.timeout_s, settings.task_timeout_s)
    return service.query(f"SELECT sourceid FROM {SOURCES}", maxrec=10_000).to_pylist()


def _exposures(box: Sandbox, settings: Settings) -> object:
    return hst.named(["SANDBOX-FLARE"], settings).exposures.to_pylist()


def _products(box: Sandbox, settings: Settings) -> object:
    found = hst.named(["SANDBOX-FLARE"], load_settings(endpoints=dict(box.endpoints)))
    return hst.products(found.exposures, settings).files.to_pylist()


def _events(box: Sandbox, settings: Settings) -> object:
    plain = load_settings(endpoints=dict(box.endpoints))
    found = hst.named(["SANDBOX-FLARE"], plain)
    listed = hst.products(found.exposures, plain)
    with Files(None, settings) as files:
        return [path.read_bytes() for path in files.fetch(pieces_of(listed.files, listed.exposures)[0])]


def _names(box: Sandbox, settings: Settings) -> object:
    return ask_simbad(["NGC 6833"], settings)


def _mirror(box: Sandbox, settings: Settings) -> object:
    with closing(open_store(box.url("/mirror"), "rxte_pca", settings, web_connections=1)) as store:
        return store.read("file.bin")


def _caom(box: Sandbox, settings: Settings) -> object:
    service = Caom(tap_url(box.endpoints["tess_kepler"], settings), settings, "tess_kepler")
    ra, dec = (np.array(values, float) for values in zip(*PLACES, strict=True))
    return service.near(ra, dec, 1.0)


def _fetch(archive: str) -> Ask:
    return partial(_fetched, archive)


_HCV, _HST = sandbox_hcv.URL_PATH, sandbox_hst.API
SERVICES = {
    "a file": Asked("/plain/file.bin", "/plain/file.bin", "madeup", _file, "file"),
    # Where a folder lists it. A file that is not there is an answer, and its content is checked by whom it is for.
    "a mirror": Asked(
        "/mirror", "/mirror/file.bin", "rxte_pca", _mirror, "file", less=("status:404", "garbage", "short")
    ),
    "TAP": Asked(HEASARC_TAP, "heasarc", "madeup", _tap, "votable"),
    "a job of TAP": Asked(
        f"{HEASARC_TAP}/async", "heasarc", "madeup", partial(_tap, asynchronous=True), "job", times=2, less=("short",)
    ),
    "HEASARC": Asked(HEASARC_TAP, "heasarc", "fermigtrig", _fetch("fermigtrig"), "votable"),
    "Gaia": Asked(GAIA_TAP, "gaia", "gaia", _fetch("gaia"), "votable"),
    # What is refused is asked for in the other structures.
    "DataLink": Asked(DATALINK_PATH, "gaia_datalink", "gaia", _fetch("gaia"), "zip", times=len(STRUCTURES)),
    "IceCube": Asked(sandbox_icecube.URL_PATH, "icecube", "icecube", _fetch("icecube"), "file"),
    "HCV": Asked(f"{_HCV}/hcvsummary.json", f"{_HCV}/hcvsummary.json", "hcv", _fetch("hcv"), "json"),
    "light curves of HCV": Asked(f"{_HCV}/hcv.json", f"{_HCV}/hcv.json", "hcv", _fetch("hcv"), "json"),
    "MAST": Asked(sandbox_mast.INVOKE, sandbox_mast.INVOKE, "tess_kepler", _fetch("tess_kepler"), "json"),
    "files of MAST": Asked(sandbox_mast.DOWNLOAD, sandbox_mast.DOWNLOAD, "tess_kepler", _fetch("tess_kepler"), "file"),
    "HST": Asked(f"{_HST}/search", "hst", "hst_timetag", _exposures, "json"),
    "columns of HST": Asked(sandbox_hst.COLUMNS, "hst", "hst_timetag", _exposures, "json"),
    "products of HST": Asked(f"{_HST}/post_list_products", "hst", "hst_timetag", _products, "json"),
    "files of HST": Asked(f"{_HST}/retrieve_product", f"{_HST}/retrieve_product", "hst_timetag", _events, "file"),
    "SIMBAD": Asked(sandbox_simbad.TAP_PATH, "simbad", "simbad", _names, "votable"),
    "ESO": Asked(sandbox_eso.TAP_PATH, "virac", "virac", _eso, "votable"),
    "MAST's TAP": Asked(MAST_TAP, MAST_TAP, "tess_kepler", _caom, "votable"),
}
# By default all faults of one request of each kind, and of the others every fourth: they are made in the same way.
_THOROUGH = ("a file", "TAP", "a job of TAP", "MAST")
CASES = [
    pytest.param(name, kind, marks=() if name in _THOROUGH or (row + column) % 4 == 0 else pytest.mark.long)
    for row, (name, one) in enumerate(SERVICES.items())
    for column, kind in enumerate(FAULTS)
    if kind not in one.less
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """All of them, on one server."""
    root = tmp_path_factory.mktemp("faults")
    names = ["gaia", "heasarc", "icecube", "hcv", "tess_kepler", "hst"]
    with Sandbox.start(root, archives=names, seed=5, scale=0.01, targets=PLACES) as box:
        box.endpoints["virac"] = sandbox_eso.mount(box, root, seed=5, scale=0.01)
        for path in ("/plain/file.bin", "/mirror/file.bin"):
            (root / "file.bin").write_bytes(CONTENT)
            box.mount_file(path, root / "file.bin")
        box.drip = (10, 0.05)
        yield box


@pytest.fixture(scope="module")
def whole() -> dict[str, object]:
    """What each service answers undisturbed, once it has been asked."""
    return {}


@pytest.fixture
def reached(served: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings that the other processes and threads of a request have, too."""
    values = {"MAX_ANSWER_MB": "8", "MAX_FILE_GB": "0.008", "CACHE_DIR": str(tmp_path / "cache"), "RETRIES": "0"}
    endpoints = {f"ENDPOINTS__{name.upper()}": url for name, url in served.endpoints.items()}
    for name, value in (values | endpoints).items():
        monkeypatch.setenv(f"LIGHTLAKE_{name}", value)
    settings_of_process.cache_clear()
    heasarc._count_without_position.cache_clear()
    yield load_settings(url=str(tmp_path))
    settings_of_process.cache_clear()
    served._faults.clear()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_service_that_fails(
    served: Sandbox, reached: Settings, whole: dict[str, object], tmp_path: Path, name: str, kind: str
) -> None:
    asked, fault = SERVICES[name], FAULTS[kind]
    if name not in whole:
        whole[name] = asked.ask(served, reached.model_copy(update={"cache_dir": tmp_path / "other"}))
        assert whole[name]
    is_again = asked.answer == "job" or kind in REFUSALS
    served.fault(asked.path, kind, times=asked.times if is_again else 1)
    with pytest.raises(ArchiveError, match=fault.told or TOLD[asked.answer, kind]) as caught:
        asked.ask(served, fault.impatient(reached))
    error, told = caught.value, str(caught.value)
    assert "\n" not in told
    assert (error.archive, error.transient) == (asked.archive, fault.transient)
    assert error.retry_after_s == fault.retry_after_s
    assert told.startswith(f"{asked.archive}: ")
    assert f"[{error.endpoint}]" in told
    endpoint = served.endpoints.get(asked.endpoint) or served.url(asked.endpoint)
    assert error.endpoint.startswith((endpoint, "mast:"))  # the URI of a file
    assert fault.transient or "LIGHTLAKE_ENDPOINTS__" in told
    if kind in SPOILT:
        served._faults.clear()
        assert asked.ask(served, reached) == whole[name], "another try brings it, and all of it"
