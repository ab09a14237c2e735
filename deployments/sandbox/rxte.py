"""Stand-in for RXTE's archive: standard products, filter files, some Standard-2 files, xtemaster, the FTP area.

Everything depends on the arguments only. Headers and columns are those of real products; what differs from one real
file to the next (`QUIRKS`) and ways of being broken (`BROKEN`) are spread over the observations.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import erfa
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deployments.sandbox.heasarc import offset
from deployments.sandbox.server import Request, Response, Sandbox
from deployments.sandbox.tap import VOTABLE, TapService, votable
from lake.text import counted

Array = NDArray[Any]
Row = dict[str, Any]
Targets = Sequence[tuple[str, float, float]]

TAP_PATH, DATALINK_PATH, FTP_PATH = "/rxte/tap", "/rxte/datalink/xtemaster", "/rxte/FTP"
ARCHIVE = "data/archive"  # the mirror, below each of the two prefixes
TARGETS = (
    ("ETA_CAR", 161.265, -59.6845), ("SS_CYG", 325.6784, 43.5861), ("CYG_X-2", 326.1717, 38.3217),
    ("4U_1636-53", 250.2313, -53.7514), ("SGR_1806-20", 272.1639, -20.411), ("3C273", 187.2779, 2.0524),
)  # fmt: skip
EPOCHS = (50_081.0, 50_163.77, 50_188.96, 51_259.73, 51_677.0)  # starts of the gain epochs, MJD (UTC)
QUIRKS = ("nan", "counts", "no_timepixr", "no_timezero", "timezero", "late", "no_gti", "no_barytime", "backv", "no_id")
"""How light curves of an ObsID may differ: NaN bins; counts/s in double precision; keywords that are absent; TIMEZERO
that is not zero, with raw TIME; RATE after another table; without GTI, BARYTIME; with BACKV and BACKE; no OBS_ID."""
BROKEN = ("truncated", "empty", "garbage", "wrong_columns", "no_table", "short_table")
"""Ways in which a light curve may be broken."""
PRODUCTS = tuple(f"xp_{what}2{band}" for what in "snb" for band in "abcde")
PRODUCTS += tuple(f"xh_{what}{cluster}{band}" for what in "snb" for cluster in "01" for band in "abc")
"""Light curves that an ObsID may have, its id left out."""
LAYERS = tuple(f"X{layer}{side}SpecPcu{pcu}" for pcu in range(5) for layer in (1, 2, 3) for side in "LR")  # Standard 2
SCHEMA = pa.schema(
    dict.fromkeys(("obsid", "target_name", "status", "pi_lname", "pi_fname", "flag", "quirk", "folder"), pa.string())
    | dict.fromkeys(("ra", "dec", "time", "duration", "exposure"), pa.float64())
    | {"cycle": pa.int16(), "prnb": pa.int32(), "epoch": pa.int16(), "n_bins": pa.int32(), "std2": pa.string()}
    | {"is_slew": pa.bool_(), "mixed": pa.bool_(), "products": pa.list_(pa.string())}
    | {"broken": pa.list_(pa.struct({"file": pa.string(), "how": pa.string()}))}
)  # fmt: skip
"""Columns of the table that `write_mirror` returns."""

MJDREFI, MJDREFF, TIMEZERO = 49_353, 0.000696574074, 3.37843167
_LIFE = (50_090.0, 55_925.0)
# About when the observations of a cycle began: proposals overlap in truth.
_CYCLES = [50_082, 50_390, 50_810, 51_179, 51_610, 51_970, 52_334, 52_699, 53_065, 53_430, 53_795, 54_280, 54_830]
_CYCLES += [55_195, 55_560]
_FLAGS = "AZSR01CDGHAZITAZFUABZS2B"  # each pair goes to one observation
_NO_EXPOSURE = set("AZRSGCD")
_ROCKED_UNTIL = {"0": 54_028, "1": 55_179}  # without rocking a HEXTE cluster has no background, so no net rate
# By band, background (count/s in a PCU or cluster) and net rate relative to that of the PCA's band a.
_BANDS = {"2a": (3.1, 1.0), "2b": (0.9, 0.35), "2c": (2.2, 0.65), "2d": (4.0, 0.3), "2e": (6.5, 0.08)}
_BANDS |= {"a": (9.0, 0.06), "b": (12.0, 0.03), "c": (25.0, 0.01)}
_CPIX = "0~4,5:53,(54~135;2),(136~237;3),(238~249;4),250~255"
_TIMING: Row = {
    "TIMVERSN": "OGIP/93-003", "TIMESYS": "TT", "TIMEUNIT": "s", "TIMEREF": "LOCAL", "TASSIGN": "SATELLITE",
    "MJDREFI": MJDREFI, "MJDREFF": MJDREFF, "CLOCKAPP": True, "TIERRELA": 1e-9, "TIERABSO": 1e-4,
}  # fmt: skip
_ZERO = ("TIMEZERI", "TIMEZERF")
_ABSENT = {"no_timepixr": ("TIMEPIXR",), "no_id": ("OBS_ID",), "timezero": _ZERO, "no_timezero": _ZERO}
_GTI: Row = {"HDUCLASS": "OGIP", "HDUCLAS1": "GTI", "HDUCLAS2": "ALL", **_TIMING}
_FORMS: Mapping[type, Callable[[Any], str]] = {
    bool: lambda v: f"{'FT'[v]:>20}", int: "{:>20}".format, float: "{:>20.14E}".format, str: "'{:<8}'".format
}  # fmt: skip
_UNITS = {"ra": "deg", "dec": "deg", "time": "mjd", "duration": "s", "exposure": "s"}
_SERVICE = [*SCHEMA.names[:5], *_UNITS, "cycle", "prnb"]


def write_mirror(
    root: Path, *, n_obsids: int, seed: int, targets: Targets = TARGETS, broken: float = 0.0, pieces: float = 0.12,
    accepted: float = 0.03, std2: float = 0.02, bins: tuple[int, int] = (100, 500),
) -> pa.Table:  # fmt: skip
    """Write ``AO{cycle}/P{prnb}/{obsid}/`` for a number of ObsIDs, and describe them.

    Parameters
    ----------
    root, n_obsids, seed
        Where the folders of the cycles go; number of ObsIDs, pieces included; seed of everything random.
    targets
        Name, right ascension and declination (deg). The first has half of the observations, over all the 16 years; if
        there are at least 18, one is in each gain epoch and one is across each boundary. Others have a year each.
    broken
        Share of ObsIDs that have light curves and one of them broken, in the ways of `BROKEN` by turns. Every other
        time it is the net light curve of band a, if there is one.
    pieces, accepted, std2
        Shares of ObsIDs with a 15th character; of rows that were accepted but not observed, which come in addition;
        and of ObsIDs with a Standard-2 file, one at least unless it is 0.
    bins
        Fewest and most bins of 16 s of what is not a piece.

    Returns
    -------
    pa.Table
        Columns of `SCHEMA`. `folder` and the path `std2` are relative to `root`, `products` are names in ``stdprod``,
        light curves only. An ObsID has one quirk or "".
    """
    if not 2 * len(targets) <= n_obsids or len(targets) > 900:
        raise ValueError(f"{n_obsids} ObsIDs are not enough for {counted(len(targets), 'target')} (of at most 900)")
    rng = np.random.default_rng([seed, 0])
    rows, clocks = _observations(rng, n_obsids, targets, pieces, bins)
    _choose(rng, rows, broken, std2)
    for number, (row, clock) in enumerate(zip(rows, clocks, strict=True)):
        _write(root / row["folder"], row, clock, np.random.default_rng([seed, 1, number]))
    known = ("target_name", "ra", "dec", "cycle", "prnb", "pi_lname", "pi_fname")
    for number in rng.integers(0, n_obsids, round(accepted * n_obsids)).tolist():
        rows.append({name: rows[number][name] for name in known} | {"status": "accepted"})
    return pa.Table.from_pylist([{k: row.get(k) for k in SCHEMA.names} for row in rows], SCHEMA)


def level(mjd: Array, target: int = 0) -> Array:
    """Net rate (count/s in a PCU, 2 to 9 keV) of a target; the first, like eta Carinae, vanishes every 2,023 d."""
    if target:
        return (8 + 7 * (target % 11)) * (1 + 0.3 * np.sin(2 * np.pi * mjd / (30 + 17 * target)))
    phase = (np.asarray(mjd) - 50_799.3) / 2_023 % 1
    return 24 / (1 + 6 * np.minimum(phase, 1 - phase)) * (1 - 0.95 * np.exp(-(((phase - 0.02) / 0.015) ** 2)))


def xtemaster(rows: pa.Table) -> pa.Table:
    """Rows of the service's table, of what `write_mirror` returned. What was not observed has no obsid and no time."""
    number = pa.array([str(16_001 + n) for n in range(len(rows))])
    table = rows.select(_SERVICE).append_column("__row", number)
    fields = [one.with_metadata({"unit": _UNITS[one.name]} if one.name in _UNITS else None) for one in table.schema]
    return table.cast(pa.schema(fields))


class ArchiveService(TapService):
    """HEASARC as far as RXTE needs it: TAP, datalink, and files with listings of folders.

    A simulated HEASARC in the same sandbox has table xtemaster, too.
    `prefixes` has the first folders that the FTP area answers to: take one away to test the fallback.
    """

    def __init__(self, box: Sandbox, files: Path, rows: pa.Table, **more: Any) -> None:
        self.table, self.files, self.prefixes = xtemaster(rows), files.resolve(), {"xte", "rxte"}
        self.ftp_url = box.url(FTP_PATH)
        super().__init__(box, TAP_PATH, {"xtemaster": self.table}, **more)
        if heasarc := box.services.get("heasarc"):
            heasarc.add("xtemaster", self.table)
        self._folders = dict(zip(self.table["__row"].to_pylist(), rows["folder"].to_pylist(), strict=True))
        box.mount(FTP_PATH, self._file)
        box.mount(DATALINK_PATH, self._datalink)

    def _file(self, request: Request) -> Response:
        inner = "/".join(part for part in request.path.removeprefix(FTP_PATH).split("/") if part)
        prefix, _, below = inner.partition("/")
        path = (self.files / below.removeprefix(ARCHIVE).strip("/")).resolve()
        ours = prefix in self.prefixes and f"{below}/".startswith(f"{ARCHIVE}/") and path.is_relative_to(self.files)
        if not ours or not path.exists():
            return Response(b"not found\n", 404, "text/plain")
        if path.is_file():
            return Response(path)
        if not request.path.endswith("/"):
            return Response(b"", 301, "text/html", {"Location": f"{self.ftp_url}/{inner}/"})
        return Response(_listing(path, request.path), 200, "text/html;charset=ISO-8859-1")

    def _datalink(self, request: Request) -> Response:
        """Folders of some rows, as the real service returns them: doubled slashes, the same ones more than once."""
        rows: list[tuple[str | None, ...]] = []
        for one in {k.upper(): v for k, v in parse_qs(request.query).items()}.get("ID", []):
            if folder := self._folders.get(one.rpartition("?")[2]):
                above, _, obsid = folder.rpartition("/")
                names = sorted(path.name for path in (self.files / above).glob(f"{obsid}*"))
                for below in (*(f"{above}/{name}//" for name in names), f"{above}//{obsid}/"):
                    plain = f"xte/{ARCHIVE}/{below.replace('//', '/')}"
                    link = f"{self.ftp_url}/xte/{ARCHIVE}/{below}"
                    rows.append((one, link, f"/FTP/{plain}", f"s3://nasa-heasarc/{plain}", None, None))
        kinds = dict.fromkeys(("ID", "access_url", "sciserver", "aws", "content_length", "error_message"), pa.string())
        table = pa.Table.from_pylist([dict(zip(kinds, row, strict=True)) for row in rows], pa.schema(kinds))
        return Response(votable(table), 200, VOTABLE)


def mount(sandbox: Sandbox, root: Path, *, seed: int, scale: float, targets: Sequence[tuple[float, float]] = ()) -> str:
    """Serve a mirror, ``root/rxte/archive``, and return the address of its files. It is written unless it is there.

    The service is ``sandbox.services["rxte"]``; ``root/rxte/observations.parquet`` is what `write_mirror` returned.
    The TAP endpoint is ``sandbox.endpoints["heasarc"]``. At scale 1 there are 2,000 ObsIDs; the real archive has some
    100,000.
    """
    named = [*TARGETS, *((f"J{ra:010.6f}{dec:+010.6f}", ra, dec) for ra, dec in targets)]
    options: Row = {"n_obsids": max(48, 3 * len(named), round(2_000 * scale)), "seed": seed, "targets": named}
    known, files = root / "rxte" / "observations.parquet", root / "rxte" / "archive"
    files.mkdir(parents=True, exist_ok=True)
    sandbox.cached(known, options, lambda: pq.write_table(write_mirror(files, **options), known))
    service = sandbox.services["rxte"] = ArchiveService(sandbox, files, pq.read_table(known))
    sandbox.endpoints.setdefault("heasarc", service.url)
    return service.ftp_url


def _listing(folder: Path, url_path: str) -> bytes:
    lines = [f'<html><body><h1>Index of {escape(url_path)}</h1><pre><a href="?C=M;O=A">Last modified</a><hr>']
    lines += [f'<a href="{escape(url_path)}../">Parent Directory</a>']
    for path in sorted(folder.glob("[!.]*")):
        name, size = (f"{path.name}/", "-") if path.is_dir() else (path.name, path.stat().st_size)
        lines.append(f'<a href="{escape(name)}">{escape(name)}</a>  2012-01-30 00:51  {size:>6}')
    return "\n".join([*lines, "<hr></pre></body></html>"]).encode()


def _observations(
    rng: np.random.Generator, n: int, targets: Targets, pieces: float, bins: tuple[int, int]
) -> tuple[list[Row], list[Array]]:
    """Draw observations and their times; and left edges of the bins of each (s since MJDREF, as in TIME)."""
    n_pieces = min(round(pieces * n), n - 2 * len(targets) + 2)
    mains = n - n_pieces
    of = np.where(np.arange(mains) < mains // 2, 0, 1 + np.arange(mains) % max(len(targets) - 1, 1)) % len(targets)
    n_bins = rng.integers(bins[0], bins[1] + 1, mains)
    gap = np.where(rng.random(mains) < 0.5, 16 * rng.integers(60, 200, mains), 0)
    days = (16 * n_bins + gap) / 86_400
    time, flags = np.empty(mains), [""] * mains + [_FLAGS[j % len(_FLAGS)] for j in range(n_pieces)]
    for target in range(len(targets)):
        mine = np.nonzero(of == target)[0]
        begin, end = _LIFE if not target else (start := rng.uniform(_LIFE[0], _LIFE[1] - 365), start + 365)
        time[mine] = begin + (end - begin) / len(mine) * (np.arange(len(mine)) + rng.uniform(0, 0.6, len(mine)))
        if not target and len(mine) >= 18:
            time[mine[:5]] = np.array(EPOCHS) + 12
            time[mine[5:9]] = np.array(EPOCHS[1:]) - days[mine[5:9]] / 2
        # No two of them overlap, slews and other pieces included.
        least, mine = 0.2 * np.arange(len(mine)), mine[np.argsort(time[mine])]
        time[mine] = np.maximum.accumulate(time[mine] - least) + least
    order = np.lexsort((time, of))
    of, time, n_bins, gap, days = of[order], time[order], n_bins[order], gap[order], days[order]
    cycle = np.searchsorted(_CYCLES, time, side="right")
    prnb = np.where(cycle < 9, 10_000 * cycle, 90_000 + 1_000 * (cycle - 9)) + 2 + of
    unique, first, which = np.unique(prnb, return_index=True, return_inverse=True)
    ordinal = np.arange(mains) - first[which]
    ra, dec = offset(
        np.array([targets[t][1:] for t in of[first]]),
        rng.uniform(0, 0.01, len(unique)),
        rng.uniform(0, 360, len(unique)),
    )
    host = rng.permutation(mains)[np.arange(n_pieces) // 2]
    later = time[host] + days[host] + (60 + 1_000 * (np.arange(n_pieces) % 2)) / 86_400
    time = np.append(time, np.where(np.array(flags[mains:]) == "A", time[host] - 800 / 86_400, later))
    n_bins, gap = np.append(n_bins, rng.integers(10, 41, n_pieces)), np.append(gap, np.zeros(n_pieces, np.int64))
    host = np.append(np.arange(mains), host)
    tt = np.array(erfa.utctai(2_400_000.5, time)[1]) + 32.184 / 86_400
    raw = np.ceil((tt - MJDREFI - MJDREFF) * 86_400 / 16).astype(np.int64) * 16
    leap = 60.184 - (tt - time) * 86_400  # seconds since 1994.0, negative
    rows, clocks = [], []
    for i in range(n):
        at, edges = int(host[i]), raw[i] + TIMEZERO + 16.0 * np.arange(n_bins[i])
        edges[len(edges) // 2 :] += gap[i]
        utc = MJDREFI + (edges[[0, -1]] + [0, 16] + leap[i]) / 86_400
        view, flag, p, group = int(ordinal[at]), flags[i], int(prnb[at]), which[at]
        obsid = f"{p:05d}-{1 + view // 99 % 99:02d}-{1 + view % 99:02d}-{view // 9_801:02d}{flag}"
        epoch, last = np.searchsorted(EPOCHS, utc, side="right").tolist()
        rows.append({
            "obsid": obsid, "target_name": targets[of[at]][0], "target": int(of[at]), "prnb": p,
            "ra": round(float(ra[group]), 4), "dec": round(float(dec[group]), 4), "time": round(float(utc[0]), 5),
            "duration": float(edges[-1] - edges[0] + 16), "status": "archived", "pi_lname": "SANDBOX", "flag": flag,
            "exposure": None if flag in _NO_EXPOSURE else float(16 * n_bins[i]), "pi_fname": "PUBLIC",
            "is_slew": flag in ("A", "Z"), "epoch": epoch, "mixed": epoch != last,
            "cycle": int(cycle[at]), "n_bins": int(n_bins[i]), "folder": f"AO{cycle[at]}/P{p:05d}/{obsid}",
        })  # fmt: skip
        clocks.append(edges)
    return rows, clocks


def _choose(rng: np.random.Generator, rows: list[Row], broken: float, std2: float) -> None:
    """Decide which products there are, which quirks they have, which are broken: more keys of the rows."""
    odds = {"xpn": 0.93, "xps": 0.2, "xpb": 0.2, "xhn": 0.2, "xhs": 0.1, "xhb": 0.1}
    chance = [0.7 if name == "xp_n2e" else odds[name[:2] + name[3]] for name in PRODUCTS]
    there, luck = rng.random((len(rows), len(chance))) < chance, rng.random(len(rows))
    for row, has, lucky in zip(rows, there.tolist(), luck.tolist(), strict=True):
        # Of slews there is mostly nothing, of other pieces often; and some observations have no products either.
        none = lucky < (0.875 if row["is_slew"] else 0.4 if row["flag"] in _NO_EXPOSURE and row["flag"] else 0.03)
        row["ready"] = not (none and round(lucky * 1e4) % 2)
        kept = [name for name, yes in zip(PRODUCTS, has, strict=True) if yes and not none]
        kept = [name for name in kept if name[:4] != "xh_n" or row["time"] < _ROCKED_UNTIL[name[4]]]
        row |= {"kinds": kept, "quirk": "", "broken": [], "std2": None}
        row["products"] = [f"{name[:2]}{row['obsid'].replace('-', '')}{name[2:]}.lc.gz" for name in kept]
    full = [row for row in rows if row["kinds"]]
    for place, index in enumerate(rng.permutation(len(full))[: max(1, round(0.03 * len(full))) * len(QUIRKS)].tolist()):
        full[index]["quirk"] = QUIRKS[place % len(QUIRKS)]
    for place, index in enumerate(rng.permutation(len(full))[: round(broken * len(full))].tolist()):
        row, turn = full[index], place // len(BROKEN)
        best = "xp_n2a" if turn % 2 == 0 and "xp_n2a" in row["kinds"] else rng.choice(row["kinds"])
        row["broken"] = [{"file": row["products"][row["kinds"].index(best)], "how": BROKEN[place % len(BROKEN)]}]
    plain = [row for row in rows if not row["flag"]]
    for index in rng.permutation(len(plain))[: max(1, round(std2 * len(rows))) if std2 else 0].tolist():
        plain[index]["std2"] = ""  # the name follows when it is written


def _write(folder: Path, row: Row, clock: Array, rng: np.random.Generator) -> None:
    """Write the folder of an ObsID."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "FMI").write_bytes(b"")  # each folder has its index, even that of a slew
    pcus = sorted({2, *np.nonzero(rng.random(5) < (0.6 if row["epoch"] < 5 else 0.3))[0].tolist()})
    if row["std2"] is not None:
        name = f"pca/FS4a_{int(clock[0]):x}-{int(clock[-1]) + 16:x}.gz"
        row["std2"] = f"{row['folder']}/{name}"
        _save(folder / name, _standard2(row, clock[:24] - TIMEZERO, pcus, rng))
    if not row["ready"]:
        return
    products = folder / "stdprod"
    _save(products / f"x{row['obsid'].replace('-', '')}.xfl.gz", _filter_file(row, clock, pcus, rng))
    net = level(MJDREFI + MJDREFF + clock / 86_400, row["target"])
    noise = {kind[4:]: rng.standard_normal(len(clock)) for kind in row["kinds"]}  # the same in s as in n
    breakage = {one["file"]: one["how"] for one in row["broken"]}
    for kind, name in zip(row["kinds"], row["products"], strict=True):
        how = breakage.get(name, "")
        _save(products / name, _light_curve(row, clock, net, noise[kind[4:]], pcus, kind, how), how)


def _light_curve(row: Row, clock: Array, net: Array, noise: Array, pcus: list[int], kind: str, how: str) -> bytes:
    """Make a light curve. Rates are those of the average PCU, as the products' are."""
    what, quirk, pca, fraction = kind[3], row["quirk"], kind[:2] == "xp", np.ones(len(clock))
    fraction[-1] = 0.5
    width, instrument = (16.0, "PCA") if pca else (128.0, "HEXTE")
    base, share = _BANDS[kind[4:] if pca else kind[5:]]
    time, net, noise, fraction = (values[:: int(width) // 16] for values in (clock, net * share, noise, fraction))
    spread = np.sqrt((net + base) / (width * (len(pcus) if pca else 1)))
    background = np.full(len(time), base), 0.05 * spread
    rate, error = background if what == "b" else (net + base * (what == "s") + spread * noise, spread)
    if quirk == "nan":
        rate, error = np.where(np.arange(len(time)) % 50 == 7, np.nan, [rate, error])
    shown = time - (TIMEZERO if quirk == "timezero" else 0)
    kinds, counts = ("f8", "counts/s") if quirk == "counts" else ("f4", "count/s")
    columns: dict[str, tuple[Array, str]] = {
        "TIME": (shown, "s"), "RATE": (rate.astype(kinds), counts), "ERROR": (error.astype(kinds), counts),
        "FRACEXP": (fraction.astype(kinds), ""),
    }  # fmt: skip
    if quirk == "backv" and what == "n":
        columns |= {key: (one.astype(kinds), counts) for key, one in zip(("BACKV", "BACKE"), background, strict=True)}
    if pca and what == "n" and quirk not in ("no_barytime", "timezero"):
        # Right to some ms: TDB for TT, the Earth's centre for the satellite, no Shapiro delay.
        earth = erfa.epv00(2_400_000.5 + MJDREFI, time[[0, -1]] / 86_400 + MJDREFF)[1]["p"]
        delay = earth @ erfa.s2c(np.radians(row["ra"]), np.radians(row["dec"])) * erfa.AULT
        columns["BARYTIME"] = (time + np.interp(time, time[[0, -1]], delay), "s")
    if how == "wrong_columns":
        del columns["RATE"], columns["ERROR"]
    cards = _cards(row, shown[0], shown[-1] + width, instrument, float(width * fraction.sum())) | {
        "HDUCLASS": "OGIP", "HDUCLAS1": "LIGHTCURVE", "HDUCLAS2": {"s": "TOTAL", "b": "BKG", "n": "NET"}[what],
        "HDUCLAS3": "RATE", "TIMEDEL": width, "TIMEPIXR": 0.0, "TIMEZERI": 0, "TIMEZERF": 0.0, "BACKAPP": what == "n",
        "DEADAPP": False, "VIGNAPP": False, "GAINAPP": False, "CPIX": _CPIX, "MINCHAN": 0, "MAXCHAN": 255,
        "CREATOR": "SAEXTRCT version 4.2g", "RXTESP": "Version 6.7 product file",
    }  # fmt: skip
    if pca:
        used = [f"X1{side}SpecPcu{pcu}" for pcu in pcus for side in "LR"]
        cards |= {f"ROWID{n}": name for n, name in enumerate(used, 1)}
    cards = {key: value for key, value in cards.items() if key not in _ABSENT.get(quirk, ())}
    cards |= {"TIMEZERO": TIMEZERO} if quirk == "timezero" else {}
    tables = [] if how == "no_table" else [_table("RATE", columns, cards)]
    if quirk != "no_gti" and tables:
        holes = np.nonzero(np.diff(shown) > 1.5 * width)[0]
        start, stop = shown[np.append(0, holes + 1)], shown[np.append(holes, len(shown) - 1)] + width
        gti = _GTI | {"TIMEZERO": cards.get("TIMEZERO", 0.0)}
        place = 0 if quirk == "late" else 1
        tables.insert(place, _table("STDGTI", {"START": (start, "s"), "STOP": (stop, "s")}, gti))
    return _fits({"CONTENT": "LIGHT CURVE", "ORIGIN": "NASA/GSFC/XTE/GOF", "TELESCOP": "XTE"}, *tables)


def _filter_file(row: Row, clock: Array, pcus: list[int], rng: np.random.Generator) -> bytes:
    """Make a filter file: raw clock, so its TIMEZERO has to be added; a few samples with the Earth or SAA near."""
    time = np.arange(clock[0] - TIMEZERO - 160, clock[-1] - TIMEZERO + 176, 16)
    n = len(time)
    electron = rng.gamma(4, 0.01, (5, n)).astype("f4")
    electron[: row["epoch"] // 5] = 0  # PCU0 has no propane left to veto with
    elevation = np.clip(np.abs(np.arange(n) - 3) * 2.0, 0, 70).astype("f4")
    columns: dict[str, tuple[Array, str]] = {
        "Time": (time, "s"), "ELV": (elevation, "deg"), "OFFSET": (np.full(n, 0.004, "f4"), "deg"),
        "NUM_PCU_ON": (np.full(n, len(pcus), "i2"), ""),
        **{f"PCU{p}_ON": (np.full(n, p in pcus, "i2"), "") for p in range(5)},
        "TIME_SINCE_SAA": ((np.arange(n) * 16 / 60 - 20).astype("f4"), "min"),
        **{f"ELECTRON{p}": (electron[p], "") for p in range(5)},
    }  # fmt: skip
    cards = _cards(row, time[0], time[-1], "PCA", 16.0 * n) | {"TIMEZERO": TIMEZERO, "TIMEDEL": 16.0, "TIMEPIXR": 0.0}
    return _fits({"CONTENT": "FILTER FILE", "TELESCOP": "XTE"}, _table("XTE_FF", columns, cards))


def _standard2(row: Row, time: Array, pcus: list[int], rng: np.random.Generator) -> bytes:
    """Make a Standard-2 file: counts in 16 s in 129 channels of each half layer; PCUs that are off have none."""
    rate = level(MJDREFI + MJDREFF + time / 86_400, row["target"])
    shape = (np.arange(129) + 0.5) * np.exp(-np.arange(129) / 8)
    columns: dict[str, tuple[Array, str]] = {"Time": (time, "s")}
    for name in LAYERS:
        share = {"1": 0.4, "2": 0.06, "3": 0.04}[name[1]] * (int(name[-1]) in pcus)
        mean = 16 * share * (rate[:, None] * shape / shape.sum() + 12 / 129)
        columns[name] = (rng.poisson(mean).astype("i2"), "count")
    columns |= {"Spillage": (np.zeros(len(time), "u1"), ""), "ModeSpecific": (np.zeros(len(time), "u1"), "")}
    cards = _cards(row, time[0], time[-1] + 16, "PCA", 16.0 * len(time)) | {
        "HDUCLASS": "OGIP", "HDUCLAS1": "ARRAY", "HDUCLAS2": "TOTAL", "TIMEZERO": TIMEZERO, "TIMEDEL": 16.0,
        "DELTAT": 16.0, "TIMEPIXR": 0.0, "DATAMODE": "Standard2f", "APPID": 74, "OBS_MODE": "POINTING",
        "GAINAPP": False, **{f"CPIX{n}": _CPIX for n in range(2, 2 + len(LAYERS))},
    }  # fmt: skip
    gti = _table("GTI", {"Start": (time[:1], "s"), "Stop": (time[-1:] + 16, "s")}, _GTI | {"TIMEZERO": TIMEZERO})
    return _fits({"ORIGIN": "XTE-SOC", "TELESCOP": "XTE"}, _table("XTE_SA", columns, cards), gti)


def _cards(row: Row, start: float, stop: float, instrument: str, on: float) -> Row:
    zero = datetime(1994, 1, 1, 0, 1, 0, 184_000, tzinfo=UTC)  # of TIME, in TT, as are the dates of real files
    begin, end = (zero + timedelta(seconds=float(t)) for t in (start, stop))
    form = "%d/%m/%y" if begin.year < 1999 else "%Y-%m-%dT%H:%M:%S"
    return {
        **_TIMING, "DATE-OBS": f"{begin:{form}}", "TIME-OBS": f"{begin:%H:%M:%S}", "DATE-END": f"{end:{form}}",
        "TIME-END": f"{end:%H:%M:%S}", "TSTARTI": int(start), "TSTARTF": float(start % 1), "TSTOPI": int(stop),
        "TSTOPF": float(stop % 1), "TSTART": float(start), "TSTOP": float(stop), "ONTIME": on, "TELESCOP": "XTE",
        "INSTRUME": instrument, "OBJECT": row["target_name"], "RA_PNT": row["ra"], "DEC_PNT": row["dec"],
        "RA": row["ra"], "DEC": row["dec"], "EQUINOX": 2000.0, "RADECSYS": "FK5", "OBS_ID": row["obsid"],
    }  # fmt: skip


def _table(name: str, columns: Mapping[str, tuple[Array, str]], cards: Row) -> bytes:
    kinds = [(key, values.dtype.newbyteorder(">"), values.shape[1:]) for key, (values, _) in columns.items()]
    table = np.empty(len(next(iter(columns.values()))[0]), kinds)
    for key, (values, _) in columns.items():
        table[key] = values
    head: Row = {"XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2, "NAXIS1": table.itemsize, "NAXIS2": len(table)}
    head |= {"PCOUNT": 0, "GCOUNT": 1, "TFIELDS": len(kinds)}
    for n, (key, kind, shape) in enumerate(kinds, 1):
        form = "".join(map(str, shape)) + {"f8": "D", "f4": "E", "i2": "I", "u1": "B"}[kind.str[1:]]
        head |= {f"TTYPE{n}": key, f"TFORM{n}": form}
        head |= {f"TUNIT{n}": columns[key][1]} if columns[key][1] else {}
    return _header(head | {"EXTNAME": name} | cards) + table.tobytes() + bytes(-table.nbytes % 2_880)


def _fits(primary: Row, *tables: bytes) -> bytes:
    return b"".join([_header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, "EXTEND": True, **primary, **_TIMING}), *tables])


def _header(cards: Row) -> bytes:
    text = "".join(f"{key:<8}= {_FORMS[type(value)](value):<70}" for key, value in cards.items()) + "END"
    return text.ljust(-(-len(text) // 2_880) * 2_880).encode("ascii")


def _save(path: Path, data: bytes, how: str = "") -> None:
    path.parent.mkdir(exist_ok=True)
    # A short table is a whole archive of half a file.
    data = data[: len(data) // 2_880 // 2 * 2_880] if how == "short_table" else data
    packed = (
        gzip.compress(data, 6, mtime=0) if how != "garbage" else b"<html><title>503 Unavailable</title></html>\n" * 40
    )
    path.write_bytes(packed[: {"truncated": len(packed) // 2, "empty": 0}.get(how, len(packed))])
