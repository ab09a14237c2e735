"""Real lists of papers, as the stand-ins of NED, VizieR and SIMBAD serve them."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

import pyarrow as pa

from deployments.sandbox import simbad, simbad_papers
from deployments.sandbox.alerce import Alerce, generated
from deployments.sandbox.ned import Ned
from deployments.sandbox.papers import Published
from deployments.sandbox.sdss import SkyServer
from deployments.sandbox.server import Sandbox
from deployments.sandbox.vizier import Catalogue, Vizier
from tasks.samples.answers import position_in

YANG, MACLEOD16, MACLEOD19 = "2018ApJ...862..109Y", "2016MNRAS.457..389M", "2019ApJ...874....8M"
RUAN, LAMASSA, GREEN, LOPEZ = "2016ApJ...826..188R", "2015ApJ...800..144L", "2022ApJ...933..180G", "2022MNRAS.513L..57L"
MACLEOD19_TABLE, GREEN_TABLE = "J/ApJ/874/8/table2", "J/ApJ/933/180/table2"
QUASARS = 3_000


def positions(folder: Path) -> list[tuple[float, float, str]]:
    """Right ascension, declination and label of real objects of five papers."""
    with (folder / "literature_samples" / "clagn_positions.csv").open() as file:
        return [(float(row["ra"]), float(row["dec"]), row["label"]) for row in csv.DictReader(file)]


def macleod19(folder: Path) -> pa.Table:
    """The paper's table 2, with VizieR's columns."""
    columns: dict[str, list[object]] = defaultdict(list)
    for line in (folder / "literature_samples" / "macleod2019_table2.dat").read_text().splitlines():
        cells = line.split()
        ra, dec = position_in(cells[0])
        for name, value in (
            ("_RA", round(ra, 5)),
            ("_DE", round(dec, 5)),
            ("SDSS", cells[0]),
            ("z", float(cells[1])),
            ("CLQ?", int(cells[-2])),
            ("Nsigma", float(cells[-1])),
        ):
            columns[name].append(value)
    return pa.table(dict(columns))


def green(folder: Path) -> pa.Table:
    """Rows of table 2 of Green et al.: two spectra of each object, and others that are none of the sample."""
    found = [(ra, dec) for ra, dec, label in positions(folder) if label == "Green 22"]
    rows = [
        {"_RA": ra, "_DE": dec, "SDSS": f"J{_designation(ra, dec)}", "State": state, "zspec": 0.3, "Notes": notes}
        for ra, dec in found
        for state, notes in (("B", "CLQ, Hb"), ("D", None))
    ]
    rows += [
        {
            "_RA": 10.0 + n,
            "_DE": 5.0,
            "SDSS": f"J{_designation(10.0 + n, 5.0)}",
            "State": "D",
            "zspec": 0.4,
            "Notes": "EVQ",
        }
        for n in range(20)
    ]
    return pa.Table.from_pylist(rows)


def yang(folder: Path) -> list[Published]:
    """Objects of the paper's table, at the positions of its text."""
    lines = (folder / "literature_samples" / "yang2018_yangg.cat").read_text().splitlines()
    objects = []
    for line in lines:
        name, ra, dec, z, *_ = line.split()
        place = position_in(f"{ra.replace(':', '')}{dec.replace(':', '')}")
        objects.append(Published(f"SDSS {name}", *place, float(z)))
    return objects


class Literature:
    """The five services, with the papers of which real positions are known."""

    def __init__(self, box: Sandbox, folder: Path) -> None:
        self.box = box
        listed: dict[str, list[Published]] = defaultdict(list)
        bibcodes = {"MacLeod 16": MACLEOD16, "Ruan 16": RUAN, "LaMassa 15": LAMASSA, "Yang 18": YANG}
        for number, (ra, dec, label) in enumerate(positions(folder)):
            if label in bibcodes:
                listed[bibcodes[label]].append(Published(f"OBJ {number:03d}", ra, dec, 0.2))
        # NED has more of LaMassa et al. than the changing-look quasar, which is not the first.
        listed[LAMASSA] += [Published("Mrk 590", 33.6398, -0.7667), Published("NGC 1566", 5.0, -54.9)]
        self.papers = dict(listed)
        redshifts = (0.1022, 0.2375, 0.3, 0.1083, 0.0849, None)
        lopez = [Published(f"ZTF {n}", 150.0 + n, 10.0 - n, z) for n, z in enumerate(redshifts)]
        self.ned = Ned(box, self.papers)
        self.vizier = Vizier(
            box,
            {
                "J/ApJ/874/8/table1": Catalogue(MACLEOD19, pa.table({"Seq": [1, 2]})),
                MACLEOD19_TABLE: Catalogue(MACLEOD19, macleod19(folder)),
                GREEN_TABLE: Catalogue(GREEN, green(folder)),
            },
        )
        self.simbad = simbad.serve(box, [("NGC  1", "NGC 1")])
        simbad_papers.add(self.simbad, {**self.papers, LOPEZ: lopez})
        self.sdss = SkyServer(box, QUASARS)
        self.alerce = Alerce(box, generated(250, seed=3))
        self.endpoints = {name: getattr(self, name).url for name in ("ned", "vizier", "simbad", "sdss", "alerce")}

    def close(self) -> None:
        """Close those that hold something."""
        self.simbad.close()
        self.sdss.close()


def _designation(ra: float, dec: float) -> str:
    from tasks.samples.sdss import designations

    return re.sub(r"^SDSS J", "", designations([ra], [dec])[0])
