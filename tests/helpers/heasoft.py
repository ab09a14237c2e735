"""Stand-ins for HEASoft's pcaprepobsid, maketime and pcaextlc2: executables that keep their parameters as those do.

Parameter files, what is printed, and the ways of failing are those of HEASoft 6.20's own scripts. What is calculated is
as simple as can be: a bin of Standard 2 is taken if its start is in a good interval; the dead time of a PCU is 1 % for
each of its number and one; its background is BACKGROUND counts in each bin, half layer and channel.
"""

from __future__ import annotations

import atexit
import csv
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from helpers import forked

_ROOTS = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

TOOLS = ("pcaprepobsid", "maketime", "pcaextlc2")
BACKGROUND = 0.25
BACKAPP = True
LONGEST_NAME = 100

# By tool: name, type, a (asked for) or h (hidden), and default of each parameter, in the order of the files.
_LISTED = {
    "pcaprepobsid": """
        indir s a; outdir s a; modelfile s h CALDB; ra r h INDEF; dec r h INDEF; timestep r h 16; bkginterval r h 16;
        breakfile s h CALDB; bkglayers b h YES; bkgfullspec b h NO; saahfile s h CALDB; zero_bad b h YES;
        transition_bad b h YES; propane_bad b h YES; abspath b h no; cleanup b h yes; chatter i h 2; clobber b h YES;
        history b h YES; mode s h ql""",
    "fcollect": "fname s a; mode s h ql",
    "maketime": """
        infile s a; outfile s a; expr s a; name s a NAME; value s a VALUE; time s a TIME; start s h START; stop s h
        STOP; compact b a yes; copykw b h yes; histkw b h yes; prefr r h -1.0; postfr r h -1.0; clobber b h no; mode s
        h ql""",
    "pcaextlc2": """
        src_infile s a; bkg_infile s a; outfile s a; gtiandfile s a -; pculist s a ALL; layerlist s a ALL; binsz r a
        16.0; lcmode s h RATE; bkgsub b h YES; deadcorrtype s h LIVE; gtiorfile s h APPLY; gticols s h START   STOP;
        timecol s h TIME; chmin s h INDEF; chmax s h INDEF; chint s h INDEF; chbin s h INDEF; cleanup b h yes; chatter
        i h 2; clobber b h yes; mode s h ql""",
}
PARAMETERS = {tool: [[*one.split(None, 3), ""][:4] for one in text.split(";")] for tool, text in _LISTED.items()}

# Without site: all that needs packages is done by the process that helpers.forked describes.
_SCRIPT = """#!{python} -S
import sys
sys.path[:0] = {folders!r}
from helpers.heasoft import main
main({tool!r})
"""
_GRAMMAR = re.compile(r"\s*(?:(&&|\|\||[<>=!]=|[!<>()])|(\d+\.?\d*|\.\d+)|(\w+))")


@dataclass(frozen=True)
class Heasoft:
    """An installation of the stand-ins, and the environment of a user who has it."""

    headas: Path
    environment: dict[str, str]

    def fail(self, tool: str, how: str | None) -> None:
        """Have a tool fail; None: no more. How: see `_fail`; or missing, empty, garbage, a colon, and a name's end."""
        path = self.headas / "fail" / tool
        path.unlink(missing_ok=True)
        if how is not None:
            path.write_text(how)

    def journal(self) -> list[dict[str, Any]]:
        """Return how the tools were called."""
        return [json.loads(path.read_text()) for path in sorted((self.headas / "journal").iterdir())]

    def pids(self) -> list[int]:
        """Return the processes that hang."""
        return [int(path.name) for path in (self.headas / "pids").iterdir()]


@cache
def _server() -> str:
    """Start the process that calculates for the tools of this test process; it ends with it."""
    socket = str(Path(tempfile.mkdtemp(prefix="heasoft-")) / "s")
    code = f"from helpers.forked import serve; serve({socket!r}, 'helpers.heasoft', 'astropy.io.fits')"
    paths = os.pathsep.join(_ROOTS)
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the tests
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.stdin.close()
        server.stdout.close()
        server.wait()
        shutil.rmtree(Path(socket).parent)

    atexit.register(end)
    return socket


def install(folder: Path, pause_s: float = 0.0) -> Heasoft:
    """Write the executables and their parameter files; and a user's own of other runs.

    With a pause, tools take that long between reading and writing parameters: others that share them are in time then.
    """
    # Not in the executables, which start the faster for it.
    from tasks.sources.rxte.energies import std2_channel

    headas = folder / "headas"
    for name in ("bin", "syspfiles", "refdata", "fail", "journal", "pids"):
        (headas / name).mkdir(parents=True)
    (headas / "refdata" / "std2.json").write_text(json.dumps(std2_channel(range(256)).tolist()))
    (headas / "refdata" / "server.json").write_text(json.dumps({"socket": _server(), "pause_s": pause_s}))
    for tool in TOOLS:
        path = headas / "bin" / tool
        path.write_text(_SCRIPT.format(python=sys.executable, folders=_ROOTS, tool=tool))
        path.chmod(0o755)
    pfiles = folder / "home" / "pfiles"
    pfiles.mkdir(parents=True)
    for tool, rows in PARAMETERS.items():
        text = "".join(f'{name},{kind},{mode},"{value}",,,"{name}"\n' for name, kind, mode, value in rows)
        (headas / "syspfiles" / f"{tool}.par").write_text(text)
        (pfiles / f"{tool}.par").write_text(text.replace('"ALL"', '"4"').replace('"NAME"', '"other"'))
    return Heasoft(
        headas,
        {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder / "home"),
            "HEADAS": str(headas),
            "CALDB": str(folder / "caldb"),
            "PFILES": f"{pfiles};{headas / 'syspfiles'}",
        },
    )


def complete(observation: Path) -> Path:
    """Add to an observation of the sandbox what pcaprepobsid also wants to be there."""
    (observation / "hexte").mkdir(exist_ok=True)
    (observation / "FMI").write_bytes(b"index")
    for letter in "abcde":
        (observation / "pca" / f"FH5{letter}_0-1.gz").write_bytes(b"housekeeping")
    return observation


def main(tool: str) -> NoReturn:
    """Run as a tool: what it does wrong it tells as HEASoft's scripts do, and exits with 0."""
    home = Path(sys.argv[0]).parents[1]
    note = {"tool": tool, "arguments": sys.argv[1:], "cwd": str(Path.cwd()), "stdin": sys.stdin.read()}
    note |= {name: os.environ.get(name) for name in ("PFILES", "TMPDIR", "HEADASNOQUERY", "HEADASPROMPT", "CALDB")}
    (home / "journal" / f"{time.time_ns()}-{uuid.uuid4().hex}").write_text(json.dumps(note))
    if "HEADASNOQUERY" not in os.environ and "HEADASPROMPT" not in os.environ:
        print(f"Task {tool} 0.0 terminating with status 6\nUnable to redirect prompts to the /dev/tty")
        sys.exit(0)
    mode = home / "fail" / tool
    how = mode.read_text() if mode.exists() else ""
    _fail(tool, how, home)
    try:
        values = _parameters(tool, sys.argv[1:])
        try:
            forked.call(_refdata("server.json")["socket"], __name__, "calculated", tool, values, BACKAPP)
        except RuntimeError as error:
            if error.args[0] != "_Died":
                raise
            raise _Died(error.args[1]) from None
    except _Died as error:
        print(f"{error} at {sys.argv[0]} line 1.", file=sys.stderr)
        print(f"Task {tool} 1.0 terminating with status -1", file=sys.stderr)
        sys.exit(0)
    what, _, end = how.partition(":")
    for path in list(Path.cwd().rglob(f"*{end}")) if end else []:
        if what == "missing":
            path.unlink()
        else:
            path.write_bytes({"empty": b"", "garbage": b"<html>"}[what])
    sys.exit(0)


class _Died(Exception):
    pass


def _refdata(name: str) -> Any:
    return json.loads((Path(sys.argv[0]).parents[1] / "refdata" / name).read_text())


def calculated(tool: str, values: dict[str, str], backapp: bool) -> None:
    """Do what a tool is for."""
    global BACKAPP  # of this process, which does nothing else
    BACKAPP = backapp
    {"pcaprepobsid": _pcaprepobsid, "maketime": _maketime, "pcaextlc2": _pcaextlc2}[tool](values)


def _fail(tool: str, how: str, home: Path) -> None:
    if how == "exit":
        print("Something happened\n=====")
        sys.exit(3)
    if how == "status":
        print(f"  half of it\nTask {tool} 1.0 terminating with status -1")
        sys.exit(0)
    if how == "died":
        Path("out").mkdir(exist_ok=True)
        Path("out/xtefilt.log").write_text("FCOLLECT could not find the orbit\n")
        print("ERROR: xtefilt failed; see out/xtefilt.log at x line 1.\nTask x 1.0 terminating with status -1")
        sys.exit(0)
    if how == "silent":
        sys.exit(0)
    if how == "perl":
        print("Can't locate HEACORE/HEAINIT.pm in @INC (you may need to install it) at x line 1.")
        sys.exit(2)
    if how in ("crash", "kill"):
        os.kill(os.getpid(), signal.SIGSEGV if how == "crash" else signal.SIGKILL)
    if how in ("hang", "leave"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (home / "pids" / str(child.pid)).touch()
        if how == "leave":
            sys.exit(3)
        (home / "pids" / str(os.getpid())).touch()
        time.sleep(600)


def _parameters(tool: str, arguments: list[str]) -> dict[str, str]:
    """Read the parameters as HEASoft does: from its own file or the user's, which learns what is asked for."""
    rows = _read(tool)
    given = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in [row[0] for row in rows]:
            raise _Died(f"ERROR: unknown parameter {name}")
        given[name] = value
    for row in rows:
        kind, value = row[1], given.get(row[0], row[3])
        sound = {"b": r"(?i)yes|no", "i": r"\d+", "r": r"-?\d*\.?\d*(e[+-]?\d+)?|INDEF"}.get(kind, r"[\s\S]*")
        if not re.fullmatch(sound, value):
            raise _Died(f"ERROR: {row[0]} cannot be {value}")
    _learn(tool, {name: value for name, value in given.items() if name in _asked(rows)})
    # Scripts ask for parameters one by one, and tell others of theirs through the same files.
    time.sleep(_refdata("server.json")["pause_s"])
    learnt = {row[0]: row[3] for row in _read(tool)}
    return learnt | {name: value for name, value in given.items() if name not in _asked(rows)}


def _asked(rows: list[list[str]]) -> list[str]:
    return [row[0] for row in rows if row[2] == "a"]


def _read(tool: str) -> list[list[str]]:
    users, system = os.environ["PFILES"].split(";")
    mine = Path(users.split(":")[0]) / f"{tool}.par"
    if not mine.exists():
        shutil.copyfile(Path(system) / f"{tool}.par", mine)
    return list(csv.reader(io.StringIO(mine.read_text())))


def _learn(tool: str, values: dict[str, str]) -> None:
    rows = _read(tool)
    text = "".join(f'{r[0]},{r[1]},{r[2]},"{values.get(r[0], r[3])}",,,"{r[0]}"\n' for r in rows)
    (Path(os.environ["PFILES"].split(":")[0].split(";")[0]) / f"{tool}.par").write_text(text)


def _pcaprepobsid(values: dict[str, str]) -> None:
    import numpy as np
    from astropy.io import fits

    print("Running pcaprepobsid v1.0\n----------------------------------------")
    source, out = values["indir"], values["outdir"]
    for name in ("pca", "hexte", "FMI"):
        if not Path(source, name).exists():
            raise _Died(f"ERROR: {source} does not have {name}")
    if len(list(Path(source, "pca").glob("FH5[abcde]_*"))) != 5:
        raise _Died(f"ERROR: all five housekeeping files are not present in {source}/pca")
    if not os.environ.get("CALDB"):
        raise _Died("ERROR: CALDB is not set")
    with tempfile.NamedTemporaryFile() as scratch:
        scratch.write(b"scratch")
    Path(out).mkdir(exist_ok=True)
    Path(out, "appid.lis").write_text("       14 ACSESTQ1\n")
    files = sorted(Path(source, "pca").glob("FS4a_*"))
    # xtefilt asks fcollect's parameter file what its output was called.
    _learn("fcollect", {"fname": f"{out}/FP_{files[0].name[5:].removesuffix('.gz')}"})
    time.sleep(_refdata("server.json")["pause_s"])
    root = next(row[3] for row in _read("fcollect") if row[0] == "fname")
    filters = list(Path(source, "stdprod").glob("x*.xfl.gz"))
    if not filters:
        raise _Died(f"ERROR: xtefilt failed; see {out}/xtefilt.log")
    Path(f"{root}.xfl").write_bytes(gzip.decompress(filters[0].read_bytes()))
    print(f"  FILT: {root}.xfl")
    if values["ra"] != "INDEF" and values["dec"] != "INDEF":
        ra, dec = float(values["ra"]), float(values["dec"])
        if not ra and not dec:
            raise _Died("ERROR: Invalid 'ra' and 'dec' keywords")
        with fits.open(f"{root}.xfl", mode="update") as opened:
            head = opened[1].header
            east = (ra - head["RA_PNT"]) * np.cos(np.radians(dec))
            opened[1].data["OFFSET"] = np.hypot(east, dec - head["DEC_PNT"])
        print(f"        (recomputed for RA={ra} DEC={dec})")
    for path in files:
        stem = f"{out}/{path.name.removesuffix('.gz')}"
        with fits.open(path) as opened:
            table, head, gti = opened[1].data, opened[1].header, opened[2].copy()
            layers = [name for name in table.names if "SpecPcu" in name]
            on = {name[-1] for name in layers if table[name].any()}
            background = {
                name: np.full(table[name].shape, BACKGROUND * (name[-1] in on), np.float32) for name in layers
            }
            live = {
                f"LiveTimePcu{pcu}": np.full(len(table), 16 * (1 - 0.01 * (int(pcu) + 1)) * (pcu in on))
                for pcu in "01234"
            }
            for end, columns in (("dt", {n: table[n] for n in background} | live), ("dtbkg", background | live)):
                forms = [
                    fits.Column(
                        n, ("129" if v.ndim > 1 else "") + {"i2": "I", "f4": "E", "f8": "D"}[v.dtype.str[1:]], array=v
                    )
                    for n, v in ({"Time": table["Time"]} | columns).items()
                ]
                made = fits.BinTableHDU.from_columns(forms, name="XTE_SA")
                for name in ("MJDREFI", "MJDREFF", "TIMESYS", "OBJECT", "RA_PNT", "DEC_PNT", "TIMEZERO", "OBS_ID"):
                    made.header[name] = head[name]
                fits.HDUList([fits.PrimaryHDU(), made, gti]).writeto(f"{stem}_{end}")
        shutil.copyfile(f"{stem}_dtbkg", f"{stem}_bkg")
        Path(f"{stem}.log").write_text("PCAPREPFILE2\n")
        print(f"  STD2: {path}")
        for name, end in (("dtstd2", "dt"), ("bkg2", "bkg"), ("dtbkg2", "dtbkg")):
            with Path(out, f"FP_{name}.lis").open("a") as file:
                file.write(f"{stem}_{end}\n")
    Path(out, "FP_xtefilt.lis").write_text(f"{root}.xfl\n")
    Path(out, "pcaprepobsid_done.txt").write_text("\n")


def _maketime(values: dict[str, str]) -> None:
    import numpy as np
    from astropy.io import fits

    print(" PREFR keyword not found, using prefr = 0.5\n POSTFR keyword not found, using postfr = 0.5")
    if values["compact"].lower() == "yes":
        print(" maketime2.9 : Name column not found\n maketime2.9 : Error Status Returned :  219")
        return
    with fits.open(values["infile"]) as opened:
        table, head = opened[1].data, opened[1].header
        columns = {name.upper(): np.asarray(table[name], float) for name in table.names}
    start, stop = np.empty(0), np.empty(0)
    try:
        good = good_rows(values["expr"], columns)
    except (SyntaxError, NameError):
        # The file is there all the same, without intervals, and the exit status is 0.
        print(" maketime2.9 : Failed to parse expression\n maketime2.9 : Error Status Returned :  431")
    else:
        change = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]])))
        clock = columns[values["time"].upper()]
        start, stop = clock[change[::2]] - 8, clock[change[1::2] - 1] + 8
    gti = _gti(start, stop, head["TIMEZERO"])
    fits.HDUList([fits.PrimaryHDU(), gti]).writeto(values["outfile"], overwrite=values["clobber"].lower() == "yes")


def good_rows(expression: str, columns: dict[str, Any]) -> Any:
    """Evaluate an expression of maketime's, as far as its grammar is known here, on a filter file's columns."""
    import numpy as np

    python, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        token = _GRAMMAR.match(text, at)
        if token is None:
            raise SyntaxError(text[at:])
        at = token.end()
        sign, number, name = token.groups()
        if name and name.upper() not in {*columns, "ISNULL"}:
            raise NameError(name)
        python.append({"&&": " and ", "||": " or ", "!": " not "}.get(sign, sign) or number or name.upper())
    code = compile("".join(python), "expr", "eval")
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return np.array([bool(eval(code, {"__builtins__": {}, "ISNULL": np.isnan}, row)) for row in rows], int)


def _gti(start: Any, stop: Any, timezero: float) -> Any:
    from astropy.io import fits

    gti = fits.BinTableHDU.from_columns(
        [fits.Column(n, "D", "s", array=v) for n, v in (("START", start), ("STOP", stop))], name="STDGTI"
    )
    times = {"HDUCLASS": "OGIP", "HDUCLAS1": "GTI", "HDUCLAS2": "STANDARD", "TIMESYS": "TT", "MJDREFI": 49353}
    gti.header.update(times | {"MJDREFF": 0.000696574074, "TIMEZERO": timezero})
    return gti


def _pcaextlc2(values: dict[str, str]) -> None:
    import numpy as np
    from astropy.io import fits

    print("Running pcaextlc2 v2.2\n----------------------------------------")
    for name in ("src_infile", "bkg_infile"):
        if not Path(values[name].removeprefix("@")).is_file():
            raise _Died(f"ERROR: Input file {values[name]} does not exist")
        if len(values[name]) > LONGEST_NAME:
            raise _Died("Error reported by 'saextrct'\nERROR: COLUMNS parameter may be too long")
    width, pcus = float(values["binsz"]), _numbers(values["pculist"], 0, 4)
    if width <= 0 or width % 16:
        raise _Died("ERROR: binsz must be a multiple of 16")
    columns = [f"X{n}{side}SpecPcu{pcu}" for pcu in pcus for n in _numbers(values["layerlist"], 1, 3) for side in "LR"]
    channels = _refdata("std2.json")
    low, high = (
        channels[default if values[name] == "INDEF" else int(values[name])]
        for name, default in (("chmin", 0), ("chmax", 255))
    )
    with fits.open(values["gtiandfile"]) as opened:
        start, stop = opened["STDGTI"].data["START"], opened["STDGTI"].data["STOP"]
    series = []
    for name in ("src_infile", "bkg_infile"):
        tables = []
        for path in Path(values[name].removeprefix("@")).read_text().split():
            with fits.open(path) as opened:
                table, head = opened[1].data, opened[1].header
                counts = sum(table[one][:, low : high + 1].sum(axis=1, dtype=float) for one in columns)
                live = sum(table[f"LiveTimePcu{pcu}"] for pcu in pcus)
                tables.append(np.array([table["Time"], counts, live]))
        times, counts, live = np.concatenate(tables, axis=1)
        inside = ((times[:, None] >= start) & (times[:, None] < stop)).any(axis=1)
        number = ((times - times[0]) // width).astype(int)
        series.append([np.bincount(number[inside], v[inside]) for v in (np.full(len(times), 16.0), counts, live)])
    begin = times[0]
    (exposure, counts, live), (_, background, _) = series
    with np.errstate(invalid="ignore", divide="ignore"):
        back, back_error = background / live, np.sqrt(background) / live
        rate, error = counts / live - back, np.hypot(np.sqrt(counts) / live, back_error)
    taken = exposure > 0
    made = {
        "TIME": begin + width * np.arange(len(exposure)),
        "RATE": rate,
        "ERROR": error,
        "FRACEXP": exposure / width,
        "LiveTime": live,
        "BACKV": back,
        "BACKE": back_error,
    }
    units = {"TIME": "s", "LiveTime": "s", "FRACEXP": None}
    table = fits.BinTableHDU.from_columns(
        [fits.Column(n, "D", units.get(n, "counts/s"), array=v[taken]) for n, v in made.items()], name="RATE"
    )
    table.header.update(
        {
            "TELESCOP": "XTE",
            "INSTRUME": "PCA",
            "TIMESYS": "TT",
            "TIMEDEL": width,
            "TIMEPIXR": 0.0,
            "HDUCLASS": "OGIP",
            "HDUCLAS1": "LIGHTCURVE",
            "HDUCLAS2": "TOTAL",
            "HDUCLAS3": "RATE",
            "DEADAPP": True,
            "BACKAPP": BACKAPP,
            "TSTART": begin,
            "TSTOP": times[-1] + 16,
            "ONTIME": exposure.sum(),
            "CREATOR": "SAEXTRCT version 4.3a",
        }
    )
    for name in ("MJDREFI", "MJDREFF", "TIMEZERO", "OBJECT", "RA_PNT", "DEC_PNT", "OBS_ID"):
        table.header[name] = head[name]
    table.header.update({f"ROWID{n}": name for n, name in enumerate(columns, 1)})
    table.header["COMMENT"] = f"CHMIN for filtering was          {values['chmin']:>10}"
    table.header["COMMENT"] = f"CHMAX for filtering was          {values['chmax']:>10}"
    clobber = values["clobber"].lower() == "yes"
    gti = _gti(start, stop, head["TIMEZERO"])
    fits.HDUList([fits.PrimaryHDU(), table, gti]).writeto(values["outfile"], overwrite=clobber)
    print("   Done")


def _numbers(text: str, low: int, high: int) -> list[int]:
    if text.upper() == "ALL":
        return list(range(low, high + 1))
    if not all(one.isdigit() and low <= int(one) <= high for one in text.split(",")):
        raise _Died(f"ERROR: unrecognized layer or PCU {text}")
    return [int(one) for one in text.split(",")]
