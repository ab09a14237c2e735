"""HEASoft's tools as they are run here: against stand-ins that keep their parameters, and fail, as HEASoft's do."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from helpers import heasoft
from helpers.heasoft import Heasoft

from deployments.sandbox import rxte as sandbox
from lake.errors import ArchiveError, ConfigurationError, GranuleRejected
from tasks.sources.rxte.cut import ChannelCut
from tasks.sources.rxte.fits import read_light_curve
from tasks.sources.rxte.heasoft import Extracted, extract, find_tools
from tasks.sources.rxte.mission import PRODUCTS, Observation

CUT = ChannelCut("heasoft", chmin=5, chmax=10)
# Absolute channels 5 to 10 are Standard-2 channels 1 to 6.
STD2 = slice(1, 7)
TARGETS = sandbox.TARGETS[:2]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Observation, int]]:
    """Observations with Standard-2 and filter files: folder, name and place, gain epoch."""
    root = tmp_path_factory.mktemp("mirror")
    table = sandbox.write_mirror(
        root, n_obsids=12, seed=2, std2=1.0, targets=TARGETS, bins=(20, 40), pieces=0, accepted=0
    )
    found = []
    for row in table.to_pylist():
        folder = root / row["folder"]
        if list(folder.glob("stdprod/*.xfl.gz")) and list(folder.glob("pca/FS4a_*")):
            found.append(
                (heasoft.complete(folder), Observation(row["obsid"], ra=row["ra"], dec=row["dec"]), row["epoch"])
            )
    assert len(found) >= 4
    return found


class Setup:
    """The stand-ins, and folders for runs."""

    def __init__(self, root: Path, pause_s: float = 0.0) -> None:
        self.heasoft: Heasoft = heasoft.install(root, pause_s)
        self.tools = find_tools(self.heasoft.environment)
        self.work, self.logs, self.root = root / "work", root / "logs", root

    def run(
        self, one: tuple[Path, Observation, int], cut: ChannelCut = CUT, *, timeout_s: float = 120, **more: Any
    ) -> Extracted:
        folder, observation, epoch = one
        return extract(
            self.tools, folder, replace(observation, **more), cut, epoch, self.work, self.logs, timeout_s=timeout_s
        )

    def log(self, one: tuple[Path, Observation, int], cut: ChannelCut = CUT) -> str:
        return (self.logs / f"{one[1].obsid}_{cut.band}.log").read_text()

    def arguments(self, tool: str) -> dict[str, str]:
        called = next(one for one in self.heasoft.journal() if one["tool"] == tool)
        return dict(argument.split("=", 1) for argument in called["arguments"])


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def expected(
    folder: Path, channels: slice = STD2, pcus: str = "01234", layers: str = "123", n: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time, net rate and exposed fraction, from the Standard-2 file and the filter file."""
    with fits.open(next(folder.glob("pca/FS4a_*"))) as opened:
        std2 = {name: np.array(opened[1].data[name]) for name in opened[1].columns.names}
    filters = fits.getdata(next(folder.glob("stdprod/*.xfl.gz")))
    elevation = dict(zip(filters["Time"].tolist(), filters["ELV"].tolist(), strict=True))
    good = np.array([elevation[time_s] > 4 for time_s in std2["Time"].tolist()])
    total, live_s, background = np.zeros(len(good)), 0.0, 0.0
    for pcu in pcus:
        names = [f"X{layer}{side}SpecPcu{pcu}" for layer in layers for side in "LR"]
        if any(std2[name].any() for name in names):
            live_s += 16 * (1 - 0.01 * (int(pcu) + 1))
            background += heasoft.BACKGROUND * len(names) * (channels.stop - channels.start)
            total += sum(std2[name][:, channels].sum(axis=1) for name in names)
    begin = std2["Time"][0]
    bins = ((std2["Time"] - begin) // (16 * n)).astype(int)
    rows = [(begin + 16 * n * k, good & (bins == k)) for k in np.unique(bins[good])]
    # Of each bin as many samples as are good.
    rate = np.array([(total[of].sum() - background * of.sum()) / (live_s * of.sum()) for _, of in rows])
    return np.array([at for at, _ in rows]), rate, np.array([of.sum() / n for _, of in rows])


def test_rates_are_those_of_the_standard2_file(setup: Setup, mirror: list[Any]) -> None:
    one = mirror[0]
    before = snapshot(one[0])
    extracted = setup.run(one)
    assert extracted.data is not None
    assert extracted.remark is None
    curve = read_light_curve(extracted.data, PRODUCTS["pca_a"])
    time_s, rate, fraction = expected(one[0])
    np.testing.assert_array_equal(curve.seconds, time_s + sandbox.TIMEZERO)
    np.testing.assert_allclose(curve.rate, rate, rtol=1e-6)
    np.testing.assert_allclose(curve.fracexp, fraction)
    assert len(curve.rate) > 10
    assert (curve.channels, curve.bin_s) == ((5, 10), 16.0)
    assert snapshot(one[0]) == before
    assert list(setup.work.iterdir()) == []


def test_what_is_to_be_kept_of_a_run(setup: Setup, mirror: list[Any]) -> None:
    one = mirror[0]
    extracted = setup.run(one)
    assert [line.split()[0] for line in extracted.commands] == ["pcaprepobsid", "maketime", "pcaextlc2"]
    assert extracted.versions == {"pcaprepobsid": "1.0", "pcaextlc2": "2.2"}
    assert extracted.log == setup.logs / f"{one[1].obsid}_pca_ch5_10.log"
    log = extracted.log.read_text()
    assert [log.count(f"$ {line}\n") for line in extracted.commands] == [1, 1, 1]
    assert "   Done\n" in log
    details = json.loads(json.dumps(extracted.details()))
    assert (details["method"], details["background"], details["dead_time"]) == ("heasoft", "subtracted", "corrected")
    assert (details["channels"], details["epoch"]) == ([5, 10], one[2])
    setup.run(one)
    assert setup.log(one) == log, "a log is of one run"


def test_layers_pcus_and_bins_are_as_cut(setup: Setup, mirror: list[Any]) -> None:
    """pcaextlc2 takes the numbers of layers and PCUs, and refuses other names."""
    one = mirror[0]
    cut = replace(CUT, pcus=(2, 4), layers=(1, 3), bin_s=48.0, chmin=54, chmax=57)
    extracted = setup.run(one, cut)
    assert extracted.data is not None
    time_s, rate, fraction = expected(one[0], slice(50, 52), "24", "13", 3)
    curve = read_light_curve(extracted.data, PRODUCTS["pca_a"])
    np.testing.assert_array_equal(curve.seconds, time_s + sandbox.TIMEZERO)
    np.testing.assert_allclose(curve.rate, rate, rtol=1e-6)
    np.testing.assert_allclose(curve.fracexp, fraction)
    asked = setup.arguments("pcaextlc2")
    assert (asked["pculist"], asked["layerlist"], asked["binsz"]) == ("2,4", "1,3", "48")


def test_tools_have_an_environment_of_their_own(setup: Setup, mirror: list[Any]) -> None:
    home, here, mine = Path(setup.heasoft.environment["HOME"]), Path.cwd(), dict(os.environ)
    before = snapshot(home)
    setup.run(mirror[0])
    assert snapshot(home) == before
    assert (Path.cwd(), dict(os.environ)) == (here, mine)
    journal = setup.heasoft.journal()
    assert len({one["PFILES"] for one in journal}) == len({one["cwd"] for one in journal}) == 1
    for one in journal:
        private, system = one["PFILES"].split(";")
        assert system == str(setup.heasoft.headas / "syspfiles")
        assert {Path(private).parent, Path(one["TMPDIR"]).parent} == {Path(one["cwd"])}
        assert Path(one["cwd"]).parent == setup.work
        assert (one["stdin"], one["HEADASNOQUERY"], one["HEADASPROMPT"]) == ("", "1", "/dev/null")


@pytest.mark.crash
def test_parallel_runs_give_what_they_give_one_by_one(tmp_path: Path, mirror: list[Any]) -> None:
    setup = Setup(tmp_path, pause_s=0.15)
    jobs = [(one, replace(CUT, chmax=chmax)) for one, chmax in zip(mirror[:4], (10, 20, 30, 40), strict=True)]
    home = Path(setup.heasoft.environment["HOME"])
    before = snapshot(home)
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda job: setup.run(*job), jobs))
    assert len({one["PFILES"] for one in setup.heasoft.journal()}) == 4
    serial = [setup.run(*job) for job in jobs]
    assert [one.data for one in parallel] == [one.data for one in serial]
    assert len({one.data for one in serial}) == 4
    assert snapshot(home) == before
    assert list(setup.work.iterdir()) == []


def test_names_are_short_however_deep_the_folders_are(tmp_path: Path, mirror: list[Any]) -> None:
    setup = Setup(tmp_path)
    deep = tmp_path.joinpath(*["x" * 40] * 4)
    shutil.copytree(mirror[0][0], deep / "observation")
    setup.work, setup.logs = deep / "work", deep / "logs"
    assert setup.run((deep / "observation", *mirror[0][1:])).data is not None


def test_the_stand_in_refuses_long_names(setup: Setup, mirror: list[Any]) -> None:
    """Otherwise the test above says nothing."""
    long = setup.root.joinpath(*["x" * 40] * 4)
    long.mkdir(parents=True)
    (long / "a.lis").touch()
    with pytest.raises(heasoft._Died, match="COLUMNS"):
        heasoft._pcaextlc2({"src_infile": f"@{long}/a.lis"})


@pytest.mark.parametrize(
    ("epoch", "low", "high"),
    [pytest.param(1, 7, 25, marks=pytest.mark.long), (3, 5, 18), pytest.param(5, 5, 16, marks=pytest.mark.long)],
)
def test_channels_follow_the_epoch_for_energies(
    setup: Setup, mirror: list[Any], epoch: int, low: int, high: int
) -> None:
    cut = ChannelCut("heasoft", emin_kev=2.0, emax_kev=7.0)
    extracted = setup.run((*mirror[0][:2], epoch), cut)
    asked = setup.arguments("pcaextlc2")
    assert extracted.channels == (int(asked["chmin"]), int(asked["chmax"])) == cut.channels(epoch)
    assert (low, high) == cut.channels(epoch)


def test_energies_beyond_the_channels_are_rejected(setup: Setup, mirror: list[Any]) -> None:
    with pytest.raises(GranuleRejected, match=r"gain epoch 1: 200 to 300 keV lie beyond"):
        setup.run((*mirror[0][:2], 1), ChannelCut("heasoft", emin_kev=200, emax_kev=300))
    assert setup.heasoft.journal() == []


def test_the_position_is_the_observations(setup: Setup, mirror: list[Any]) -> None:
    """Off the axis there is no good time; without a position the tools take that of the index."""
    one = mirror[0]
    dec = one[1].dec + 0.2
    off = setup.run(one, dec=dec)
    assert (off.data, off.remark) == (None, f"no good time: {CUT.gti}")
    asked = setup.arguments("pcaprepobsid")
    assert (float(asked["ra"]), float(asked["dec"])) == (pytest.approx(one[1].ra), pytest.approx(dec))
    assert len(off.commands) == 2
    for ra, dec_ in ((None, None), (0.0, 0.0)):
        shutil.rmtree(setup.heasoft.headas / "journal")
        (setup.heasoft.headas / "journal").mkdir()
        assert setup.run(one, ra=ra, dec=dec_).data is not None
        assert not {"ra", "dec"} & set(setup.arguments("pcaprepobsid"))


def test_no_good_time_is_a_finding(setup: Setup, mirror: list[Any]) -> None:
    one, cut = mirror[0], replace(CUT, gti="ELV > 90 || !(NUM_PCU_ON < 6)")
    extracted = setup.run(one, cut)
    assert (extracted.data, extracted.remark) == (None, "no good time: ELV > 90 || !(NUM_PCU_ON < 6)")
    assert "$ maketime" in extracted.log.read_text()
    assert list(setup.work.iterdir()) == []


@pytest.mark.parametrize("gti", ["ELVE > 4", "(ELV > 4) &&& (OFFSET < 1)"])
def test_an_expression_that_maketime_does_not_take_is_no_finding(setup: Setup, mirror: list[Any], gti: str) -> None:
    """It leaves a GTI without intervals then, and exits with 0."""
    with pytest.raises(GranuleRejected, match=r"maketime failed with exit status 0: maketime.* Error Status Returned"):
        setup.run(mirror[0], replace(CUT, gti=gti))


def test_good_time_between_the_bins_leaves_none(setup: Setup, mirror: list[Any], tmp_path: Path) -> None:
    """The filter file begins before Standard 2 does: where only that is good, no bin is."""
    one = (Path(shutil.copytree(mirror[0][0], tmp_path / "copy")), *mirror[0][1:])
    path = next(one[0].glob("stdprod/*.xfl.gz"))
    with fits.open(path) as opened:
        opened[1].data["ELV"][3:] = 0
        out = io.BytesIO()
        opened.writeto(out)
    path.write_bytes(gzip.compress(out.getvalue()))
    extracted = setup.run(one)
    assert (extracted.data, extracted.remark) == (None, "no bin lies within the good time")


FAILURES: list[tuple[str, str, str]] = [
    ("pcaprepobsid", "exit", "failed with exit status 3: Something happened"),
    ("maketime", "exit", "failed with exit status 3: Something happened"),
    ("pcaextlc2", "exit", "failed with exit status 3: Something happened"),
    ("pcaprepobsid", "died", r"failed with exit status 0: ERROR: xtefilt failed; see out/xtefilt\.log"),
    ("maketime", "status", "failed with exit status 0: Task maketime 1.0 terminating with status -1"),
    ("pcaextlc2", "status", "failed with exit status 0: Task pcaextlc2 1.0 terminating with status -1"),
    ("pcaprepobsid", "silent", "left no pcaprepobsid_done.txt: it said nothing"),
    ("maketime", "silent", r"left no good\.gti"),
    ("pcaextlc2", "silent", r"left no pca\.lc"),
    ("pcaprepobsid", "crash", "crashed: Segmentation fault"),
    ("maketime", "crash", "crashed: Segmentation fault"),
    ("pcaprepobsid", "missing:pcaprepobsid_done.txt", "left no pcaprepobsid_done.txt"),
    ("pcaprepobsid", "missing:.xfl", "left 0 filter files"),
    ("pcaprepobsid", "empty:.xfl", r"left out/FP_\S+\.xfl empty"),
    ("pcaprepobsid", "missing:appid.lis", r"left no out/appid\.lis"),
    ("pcaprepobsid", "missing:FP_dtstd2.lis", r"left no out/FP_dtstd2\.lis"),
    ("pcaprepobsid", "empty:FP_dtbkg2.lis", r"left out/FP_dtbkg2\.lis empty"),
    ("pcaprepobsid", "missing:_dt", r"left no out/FS4a_\S+_dt"),
    ("pcaprepobsid", "empty:_dtbkg", r"left out/FS4a_\S+_dtbkg empty"),
    ("maketime", "empty:good.gti", r"left good\.gti empty"),
    ("maketime", "garbage:good.gti", "left no sound FITS file"),
    ("pcaextlc2", "empty:pca.lc", r"left pca\.lc empty"),
    ("pcaextlc2", "garbage:pca.lc", "left no sound FITS file"),
]


# By default each way of failing once, of one of the tools.
ONCE = (0, 3, 4, 8, 10, 11, 12, 18, 20)


@pytest.mark.parametrize(
    ("tool", "how", "told"),
    [pytest.param(*one, marks=() if n in ONCE else pytest.mark.crash) for n, one in enumerate(FAILURES)],
)
def test_a_tool_that_fails_is_told_by_name(setup: Setup, mirror: list[Any], tool: str, how: str, told: str) -> None:
    setup.heasoft.fail(tool, how)
    before = snapshot(mirror[0][0])
    with pytest.raises(GranuleRejected, match=f"^{tool} {told}") as caught:
        setup.run(mirror[0])
    assert caught.value.reason.endswith(f"; log: {setup.logs / f'{mirror[0][1].obsid}_pca_ch5_10.log'}")
    assert "\n" not in caught.value.reason
    assert f"$ {tool} " in setup.log(mirror[0])
    assert list(setup.work.iterdir()) == []
    assert snapshot(mirror[0][0]) == before


def test_what_the_tools_of_a_tool_said_is_kept(setup: Setup, mirror: list[Any]) -> None:
    """pcaprepobsid only names their logs, which are in the folder that is removed."""
    setup.heasoft.fail("pcaprepobsid", "died")
    with pytest.raises(GranuleRejected):
        setup.run(mirror[0])
    assert "# xtefilt.log\nFCOLLECT could not find the orbit\n" in setup.log(mirror[0])
    setup.heasoft.fail("pcaprepobsid", None)
    assert setup.run(mirror[0]).data is not None
    assert "FCOLLECT" not in setup.log(mirror[0])


def gone(pid: int) -> bool:
    """Say whether a process has ended; a zombie has, whoever is to bury it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_for(what: Callable[[], bool]) -> bool:
    for _ in range(200):
        if what():
            return True
        time.sleep(0.05)
    return False


def test_a_tool_that_hangs_is_killed_with_all_that_it_started(setup: Setup, mirror: list[Any]) -> None:
    setup.heasoft.fail("pcaprepobsid", "hang")
    for timeout_s in (2, 8, 30):
        with pytest.raises(ArchiveError, match="pcaprepobsid was not ready in time; log: ") as caught:
            setup.run(mirror[0], timeout_s=timeout_s)
        assert caught.value.transient
        if len(setup.heasoft.pids()) == 2:
            break
    assert len(setup.heasoft.pids()) >= 2
    assert wait_for(lambda: all(map(gone, setup.heasoft.pids())))
    assert list(setup.work.iterdir()) == []
    assert "$ pcaprepobsid" in setup.log(mirror[0])


def test_a_tool_that_fails_leaves_no_process_behind(setup: Setup, mirror: list[Any]) -> None:
    setup.heasoft.fail("maketime", "leave")
    with pytest.raises(GranuleRejected, match="maketime failed with exit status 3"):
        setup.run(mirror[0])
    assert len(setup.heasoft.pids()) == 1
    assert wait_for(lambda: all(map(gone, setup.heasoft.pids())))


def test_the_time_is_that_of_the_three_together(setup: Setup, mirror: list[Any]) -> None:
    with pytest.raises(ArchiveError, match="pcaprepobsid was not ready in time"):
        setup.run(mirror[0], timeout_s=0)


def test_a_tool_that_somebody_kills_is_not_the_observations_fault(setup: Setup, mirror: list[Any]) -> None:
    setup.heasoft.fail("maketime", "kill")
    with pytest.raises(ArchiveError, match="maketime was killed by SIGKILL") as caught:
        setup.run(mirror[0])
    assert caught.value.transient


@pytest.mark.parametrize("how", ["gone", "not executable", "no program"])
def test_a_tool_that_cannot_be_run_is_the_installations_fault(setup: Setup, mirror: list[Any], how: str) -> None:
    path = setup.heasoft.headas / "bin" / "maketime"
    if how == "gone":
        path.unlink()
    elif how == "not executable":
        path.chmod(0o644)
    else:
        path.write_bytes(b"\x00\x01")
    with pytest.raises(ConfigurationError, match=r"bin/maketime cannot be run: .*headas-init\.sh"):
        setup.run(mirror[0])
    assert list(setup.work.iterdir()) == []


def test_a_heasoft_that_is_not_initialised_is_the_installations_fault(setup: Setup, mirror: list[Any]) -> None:
    setup.heasoft.fail("pcaprepobsid", "perl")
    with pytest.raises(ConfigurationError, match=r"pcaprepobsid does not work: Can't locate HEACORE.*headas-init\.sh"):
        setup.run(mirror[0])


def test_a_disk_that_fails_is_not_the_observations_fault(setup: Setup, mirror: list[Any]) -> None:
    setup.work.write_bytes(b"a file")
    with pytest.raises(OSError, match="File exists"):
        setup.run(mirror[0])


@pytest.mark.parametrize(
    ("gone_", "told"),
    [("pca", "pca, pca/FH5a_"), ("hexte", "out hexte$"), ("FMI", r"out FMI\*$"), ("pca/FS4a_", r"out pca/FS4a_\*$")],
)
def test_an_observation_that_is_not_whole_is_rejected_first(
    setup: Setup, mirror: list[Any], tmp_path: Path, gone_: str, told: str
) -> None:
    folder = Path(shutil.copytree(mirror[0][0], tmp_path / "copy"))
    for path in folder.glob(f"{gone_}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(GranuleRejected, match=told):
        setup.run((folder, *mirror[0][1:]))
    assert setup.heasoft.journal() == []


def test_rates_that_are_not_net_are_refused(setup: Setup, mirror: list[Any]) -> None:
    """What the light curve says of itself counts."""
    path = setup.heasoft.headas / "bin" / "pcaextlc2"
    path.write_text(path.read_text().replace("main(", "import helpers.heasoft as h\nh.BACKAPP = False\nmain("))
    with pytest.raises(GranuleRejected, match="pcaextlc2 left rates that are not less the background"):
        setup.run(mirror[0])


def test_without_heasoft_one_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_tools({"PATH": str(tmp_path)})
    told = str(caught.value)
    assert told.startswith("method heasoft needs HEASoft, and there is no pcaprepobsid, maketime, pcaextlc2, $HEADAS (")
    for word in ("CALDB", "HEASARC's site", "conda package", "source $HEADAS/headas-init.sh", "method standard2"):
        assert word in told
    assert "\n" not in told


def test_what_is_missing_of_heasoft_is_named(setup: Setup) -> None:
    environment = setup.heasoft.environment
    (setup.heasoft.headas / "bin" / "maketime").unlink()
    with pytest.raises(ConfigurationError, match="there is no maketime "):
        find_tools(environment)
    shutil.rmtree(setup.heasoft.headas / "syspfiles")
    with pytest.raises(ConfigurationError, match=r"there is no maketime, \$HEADAS/syspfiles "):
        find_tools(environment)


def test_tools_are_those_of_headas_or_else_on_path(setup: Setup, tmp_path: Path) -> None:
    assert setup.tools.paths["maketime"] == setup.heasoft.headas / "bin" / "maketime"
    other = tmp_path / "other"
    shutil.copytree(setup.heasoft.headas / "bin", other)
    environment = setup.heasoft.environment | {"PATH": str(other)}
    assert find_tools(environment).paths["maketime"] == setup.heasoft.headas / "bin" / "maketime"
    shutil.rmtree(setup.heasoft.headas / "bin")
    assert find_tools(environment).paths["maketime"] == other / "maketime"


@pytest.mark.parametrize("caldb", [None, ""])
def test_without_caldb_nothing_is_run(setup: Setup, mirror: list[Any], caldb: str | None) -> None:
    environment = {name: value for name, value in setup.heasoft.environment.items() if name != "CALDB"}
    setup.tools = find_tools(environment | ({"CALDB": caldb} if caldb is not None else {}))
    assert setup.tools.caldb is None
    with pytest.raises(ConfigurationError, match=r"\$CALDB is not set"):
        setup.run(mirror[0])
    assert setup.heasoft.journal() == []
