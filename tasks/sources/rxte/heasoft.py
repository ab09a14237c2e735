"""Light curves of the PCA re-extracted by HEASoft: pcaprepobsid, maketime and pcaextlc2, one observation at a time.

HEASoft is optional, and no Python package. Its tools keep what they were last asked in parameter files, which two of
them at a time spoil, and they fail with exit status 0: so each observation has a folder of its own for everything, and
the tools are believed only as far as their files go. Sources: HEASARC's recipes; pcaprepobsid, pcaextlc2,
xtefilt, maketime.f and their parameter files, as HEASoft 6.20 has them; HEASARC's page on scripting HEASoft.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lake.errors import ArchiveError, ConfigurationError, GranuleRejected, LightlakeError
from tasks.sources.rxte import mission as rxte
from tasks.sources.rxte.cut import LAYERS, PCUS, ChannelCut
from tasks.sources.rxte.mission import Observation

TOOLS = ("pcaprepobsid", "maketime", "pcaextlc2")
HINT = (
    "install HEASoft with its CALDB, from HEASARC's site or as its conda package, and source $HEADAS/headas-init.sh; "
    "standard products, and method standard2, do without"
)

# Of an observation's folder: pcaprepobsid wants the index, all five housekeeping files and Standard 2.
_NEEDED = ("FMI*", "hexte", "pca", *(f"pca/FH5{letter}_*" for letter in "abcde"), "pca/FS4a_*")

# Relative to the folder in which the tools run. They have to be short: saextrct's COLUMNS overflows, and
# other tools take names of some 100 characters.
_OBSERVATION, _PREPARED, _GTI, _LIGHT_CURVE = "obs", "out", "good.gti", "pca.lc"

# Written last, and only if all went well; appid.lis is written first.
_DONE = "pcaprepobsid_done.txt"

# What tools say that failed, whatever their exit status; maketime leaves a GTI without intervals then.
_FAILED = re.compile(
    r"\bERROR:|Error reported by|Error Status Returned|Failed to parse expression|status -\d|with status [1-9]", re.I
)
_UNUSABLE = re.compile(r"Can't locate \S+ in @INC|error while loading shared libraries|command not found")
_VERSION = re.compile(r"^Running (\w+) v([\w.]+)", re.M)
_NOT_RUNNABLE = {errno.ENOENT, errno.EACCES, errno.ENOEXEC}

# Signals that come from outside: a scheduler's or a user's, or the kernel's when memory runs out.
_FROM_OUTSIDE = {signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM}


@dataclass(frozen=True)
class Tools:
    """An installed HEASoft.

    Parameters
    ----------
    headas
        Its folder, $HEADAS.
    paths
        The executables, by name.
    caldb
        $CALDB, the calibration database; None if it is not set.
    environment
        Variables that the tools are given.
    """

    headas: Path
    paths: Mapping[str, Path]
    caldb: str | None
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Extracted:
    """A light curve that HEASoft made of an observation.

    Parameters
    ----------
    data
        The light curve's file: net rates of the average PCU, corrected for dead time. None: there is none, see remark.
    remark
        Why there is no light curve; None if there is one.
    channels, epoch
        First and last absolute channel, and the gain epoch that they were taken for.
    log
        What the tools said.
    commands
        How they were called, in order.
    versions
        Of the tools that tell theirs.
    """

    data: bytes | None
    remark: str | None
    channels: tuple[int, int]
    epoch: int
    log: Path
    commands: tuple[str, ...]
    versions: Mapping[str, str]

    def details(self) -> dict[str, Any]:
        """Return the details of its making, for the lake."""
        return {
            "method": "heasoft",
            "rate": "of the average PCU",
            "background": "subtracted",
            "dead_time": "corrected",
            "channels": list(self.channels),
            "epoch": self.epoch,
            "commands": list(self.commands),
            "versions": dict(self.versions),
            "log": self.log.name,
        }


def find_tools(environment: Mapping[str, str] = os.environ) -> Tools:
    """Find HEASoft: below $HEADAS, whose parameter files its tools need, and else on PATH.

    Raises
    ------
    ConfigurationError
        If it is not there, or not as a whole.
    """
    headas = Path(environment["HEADAS"]).absolute() if environment.get("HEADAS") else None
    folders = [str(headas / "bin")] if headas else []
    folders += [folder for folder in environment.get("PATH", "").split(os.pathsep) if folder]
    search = os.pathsep.join(folders)
    found = {name: shutil.which(name, path=search) for name in TOOLS}
    missing = [name for name, path in found.items() if path is None]
    if headas is None:
        missing.append("$HEADAS")
    elif not (headas / "syspfiles").is_dir():
        missing.append("$HEADAS/syspfiles")
    if missing or headas is None:
        raise ConfigurationError(f"method heasoft needs HEASoft, and there is no {', '.join(missing)}", hint=HINT)
    paths = {name: Path(path).absolute() for name, path in found.items() if path is not None}
    return Tools(headas, paths, environment.get("CALDB") or None, {**environment, "PATH": search})


def extract(
    tools: Tools,
    folder: Path,
    observation: Observation,
    cut: ChannelCut,
    epoch: int,
    work: Path,
    logs: Path,
    timeout_s: float,
) -> Extracted:
    """Make the light curve of an observation. Several may run at a time, in threads or processes.

    Parameters
    ----------
    tools
        From find_tools.
    folder
        The observation as the archive has it; it is not changed.
    observation
        Its name; and its position, degrees, which the tools otherwise take from its index.
    cut
        Which counts make the light curve.
    epoch
        Its gain epoch, 1 to 5.
    work
        Where the tools have a folder while they run, which is removed afterwards in any case. On disk: it has copies of
        the observation's Standard-2 files.
    logs
        Where OBSID_BAND.log is kept.
    timeout_s
        Longest time for the three tools together, seconds.

    Raises
    ------
    GranuleRejected
        If the observation is not whole, or a tool failed on it.
    ArchiveError
        If the tools took too long or were killed from outside; another time may be better.
    ConfigurationError
        If HEASoft does not work as it is installed.
    OSError
        If the disk fails.
    """
    if tools.caldb is None:
        raise ConfigurationError("$CALDB is not set: pcaprepobsid takes the background's model from there", hint=HINT)
    folder, work, logs = folder.absolute(), work.absolute(), logs.absolute()
    if absent := [pattern for pattern in _NEEDED if next(folder.glob(pattern), None) is None]:
        raise GranuleRejected(f"{observation.obsid} cannot be extracted anew without {', '.join(absent)}")
    try:
        channels = cut.channels(epoch)
    except ValueError as error:
        raise GranuleRejected(f"{observation.obsid}, gain epoch {epoch}: {error}") from error
    for each in (work, logs):
        each.mkdir(parents=True, exist_ok=True)
    log = logs / f"{observation.obsid}_{cut.band}.log"
    log.write_bytes(b"")
    private = Path(tempfile.mkdtemp(prefix=f"{observation.id.stem}-", dir=work))
    run = _Run(tools, private, log, time.monotonic() + timeout_s)
    try:
        (private / _OBSERVATION).symlink_to(folder, target_is_directory=True)
        data, remark = _light_curve(run, observation, cut, channels)
    except LightlakeError:
        run.keep_logs()
        raise
    finally:
        _remove(private)
    versions = dict(_VERSION.findall(log.read_text(errors="replace")))
    return Extracted(data, remark, channels, epoch, log, tuple(run.commands), versions)


def _light_curve(
    run: _Run, observation: Observation, cut: ChannelCut, channels: tuple[int, int]
) -> tuple[bytes | None, str | None]:
    position: dict[str, str] = {}
    # To pcaprepobsid 0, 0 is no position.
    if observation.ra is not None and observation.dec is not None and (observation.ra or observation.dec):
        position = {"ra": f"{observation.ra:.6f}", "dec": f"{observation.dec:.6f}"}
    run("pcaprepobsid", indir=_OBSERVATION, outdir=_PREPARED, **position, clobber="yes")
    filters = _prepared(run)
    run(
        "maketime",
        infile=f"{_PREPARED}/{filters}",
        outfile=_GTI,
        expr=cut.gti,
        name="NAME",
        value="VALUE",
        time="TIME",
        compact="NO",
        clobber="yes",
    )
    if not _has_intervals(run.output("maketime", _GTI), run):
        return None, f"no good time: {cut.gti}"
    run(
        "pcaextlc2",
        src_infile=f"@{_PREPARED}/FP_dtstd2.lis",
        bkg_infile=f"@{_PREPARED}/FP_dtbkg2.lis",
        outfile=_LIGHT_CURVE,
        gtiandfile=_GTI,
        chmin=str(channels[0]),
        chmax=str(channels[1]),
        pculist=_listed(cut.pcus, PCUS),
        layerlist=_listed(cut.layers, LAYERS),
        binsz=f"{cut.bin_s:g}",
        clobber="yes",
    )
    data, n_bins = _net(run.output("pcaextlc2", _LIGHT_CURVE).read_bytes(), run)
    return (data, None) if n_bins else (None, "no bin lies within the good time")


def _listed(some: tuple[int, ...], all_: tuple[int, ...]) -> str:
    return "ALL" if some == all_ else ",".join(map(str, some))


def _prepared(run: _Run) -> str:
    """Return the name of the filter file, after a check that pcaprepobsid has made all files."""
    if not (run.folder / _PREPARED / _DONE).exists():
        raise run.failure("pcaprepobsid", f"left no {_DONE}")
    run.output("pcaprepobsid", f"{_PREPARED}/appid.lis")
    found = sorted((run.folder / _PREPARED).glob("FP_*.xfl"))
    if len(found) != 1:
        raise run.failure("pcaprepobsid", f"left {len(found)} filter files FP_*.xfl")
    run.output("pcaprepobsid", f"{_PREPARED}/{found[0].name}")
    files = [
        run.output("pcaprepobsid", f"{_PREPARED}/{name}").read_text().split()
        for name in ("FP_dtstd2.lis", "FP_dtbkg2.lis")
    ]
    if len(files[0]) != len(files[1]):
        raise run.failure("pcaprepobsid", f"left {len(files[0])} Standard-2 files and {len(files[1])} backgrounds")
    for name in (*files[0], *files[1]):
        run.output("pcaprepobsid", name)
    return found[0].name


class _Run:
    """The tools' runs for one observation, in its own folder, with its own parameter files."""

    def __init__(self, tools: Tools, folder: Path, log: Path, deadline_s: float) -> None:
        self.tools, self.folder, self.log, self.deadline_s = tools, folder, log, deadline_s
        self.commands: list[str] = []
        parameters, scratch = folder / "pfiles", folder / "tmp"
        for each in (parameters, scratch):
            each.mkdir()
        # Without the two HEADAS variables a tool waits for a terminal to ask at. LC_ALL: xtefilt fails if perl warns.
        self.environment = {
            **tools.environment,
            "PFILES": f"{parameters};{tools.headas / 'syspfiles'}",
            "TMPDIR": str(scratch),
            "HEADASNOQUERY": "1",
            "HEADASPROMPT": "/dev/null",
            "LC_ALL": "C",
        }

    def __call__(self, tool: str, **parameters: str) -> None:
        """Run a tool; raise as extract does if it reports a failure in any way."""
        arguments = [f"{name}={value}" for name, value in parameters.items()]
        self.commands.append(shlex.join([tool, *arguments]))
        with self.log.open("ab") as file:
            file.write(f"$ {self.commands[-1]}\n".encode())
            file.flush()
            begin = file.tell()
            status = self._wait(tool, arguments, file)
        output = self.log.read_bytes()[begin:].decode(errors="replace")
        if _UNUSABLE.search(output):
            raise ConfigurationError(f"{tool} does not work: {_last(output)}; log: {self.log}", hint=HINT)
        if -status in _FROM_OUTSIDE:
            raise self._passing(tool, f"was killed by {signal.Signals(-status).name}")
        if status < 0:
            raise self.failure(tool, f"crashed: {signal.strsignal(-status) or -status}", output)
        if status or _FAILED.search(output):
            raise self.failure(tool, f"failed with exit status {status}", output)

    def _wait(self, tool: str, arguments: list[str], file: io.BufferedWriter) -> int:
        path = self.tools.paths[tool]
        try:
            # Nothing of it goes through a shell; the executable is the user's own HEASoft.
            process = subprocess.Popen(  # noqa: S603
                [path, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in _NOT_RUNNABLE:
                raise ConfigurationError(f"{path} cannot be run: {error.strerror}", hint=HINT) from error
            raise
        try:
            return process.wait(max(self.deadline_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired as error:
            raise self._passing(tool, "was not ready in time") from error
        finally:
            # The scripts run other tools, which may outlive them, whether they are stopped or crash.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def output(self, tool: str, name: str) -> Path:
        """Return a file that a tool should have made; GranuleRejected if it is missing or empty."""
        path = self.folder / name
        if not path.is_file():
            raise self.failure(tool, f"left no {name}")
        if path.stat().st_size == 0:
            raise self.failure(tool, f"left {name} empty")
        return path

    def failure(self, tool: str, what: str, output: str | None = None) -> GranuleRejected:
        """Make the error of a tool: what happened, its last line of output, and the log."""
        output = self.log.read_text(errors="replace") if output is None else output
        return GranuleRejected(f"{tool} {what}: {_last(output)}; log: {self.log}")

    def keep_logs(self) -> None:
        """Add the output of pcaprepobsid's own tools to the log: it only names their files, which are soon removed."""
        with self.log.open("ab") as file:
            for path in sorted((self.folder / _PREPARED).glob("*.log")):
                file.write(f"# {path.name}\n".encode() + path.read_bytes())

    def _passing(self, tool: str, what: str) -> ArchiveError:
        return ArchiveError(
            f"{tool} {what}; log: {self.log}", archive=rxte.NAME, endpoint=str(self.tools.paths[tool]), transient=True
        )


def _last(output: str) -> str:
    """Return the last line that is not empty, of those about errors if there are any."""
    lines = [line.strip() for line in output.splitlines() if line.strip(" -=#\t") and not line.startswith("$ ")]
    errors = [line for line in lines if _FAILED.search(line) or _UNUSABLE.search(line)]
    causes = [line for line in errors if "with status" not in line]
    return (causes or errors or lines or ["it said nothing"])[-1]


def _has_intervals(path: Path, run: _Run) -> bool:
    for names, table, _ in _tables(path.read_bytes(), "maketime", run):
        if {"START", "STOP"} <= names:
            return bool(np.any(np.asarray(table.data["STOP"]) > np.asarray(table.data["START"])))
    raise run.failure("maketime", f"left no intervals START and STOP in {_GTI}")


def _net(body: bytes, run: _Run) -> tuple[bytes, int]:
    """Mark a light curve as net in its header, and return it with the number of its bins.

    pcaextlc2 subtracts the background and sets BACKAPP, but leaves saextrct's HDUCLAS2, TOTAL, as it was.
    """
    for names, table, (begin, end) in _tables(body, "pcaextlc2", run):
        if {"TIME", "RATE"} <= names:
            for name, meant in (("BACKAPP", "less the background"), ("DEADAPP", "corrected for dead time")):
                if str(table.header.get(name, True)).upper() not in ("T", "TRUE"):
                    raise run.failure("pcaextlc2", f"left rates that are not {meant}")
            header = body[begin:end].replace(b"HDUCLAS2= 'TOTAL   '", b"HDUCLAS2= 'NET     '")
            return body[:begin] + header + body[end:], len(table.data)
    raise run.failure("pcaextlc2", f"left no table of TIME and RATE in {_LIGHT_CURVE}")


def _tables(body: bytes, tool: str, run: _Run) -> list[tuple[set[str], Any, tuple[int, int]]]:
    """Return names of columns, table, and where its header is, of each table of a file."""
    from astropy.io import fits

    try:
        with fits.open(io.BytesIO(body)) as opened:
            found = [hdu for hdu in opened if isinstance(hdu, fits.BinTableHDU) and hdu.data is not None]
            places = [hdu.fileinfo() for hdu in found]
    except (OSError, TypeError, ValueError) as error:
        raise run.failure(tool, f"left no sound FITS file ({error})") from error
    return [
        ({name.upper() for name in hdu.columns.names}, hdu, (place["hdrLoc"], place["datLoc"]))
        for hdu, place in zip(found, places, strict=True)
    ]


def _remove(folder: Path) -> None:
    """Remove a folder in which a process that was just killed may have written a file meanwhile."""
    for pause_s in (0.05, 0.5, 2.0):
        try:
            shutil.rmtree(folder)
        except OSError:
            time.sleep(pause_s)
        else:
            return
    shutil.rmtree(folder)
