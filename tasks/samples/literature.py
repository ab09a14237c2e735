"""Samples of the literature, as facts: which paper, who has its objects, which of them, and how many there were.

Counts are those that the services gave when last seen. NED and SIMBAD list what they took from a paper, which need not
be the paper's own list; `in_paper` says what that has. A new sample is one more row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from tasks.samples.selection import Above, Condition, Contains, Near, OneOf

ServiceName = Literal["ned", "vizier", "simbad"]
_SEEN = date(2026, 11, 28)


@dataclass(frozen=True)
class LiteratureSample:
    """A sample of a paper.

    Parameters
    ----------
    key
        Its name here, and in a lake.
    paper, bibcode, label
        The paper, and the label that its objects get.
    service, table
        Who has them; a table of VizieR.
    conditions, source
        Which of the rows are the sample: all of these hold; and who says so.
    expected, seen
        Rows that it had when it was last seen, and the day; without a day, those that the paper says.
    in_paper
        What the paper itself counts.
    """

    key: str
    paper: str
    bibcode: str
    label: str
    service: ServiceName
    table: str | None = None
    conditions: tuple[Condition, ...] = ()
    source: str | None = None
    expected: int | None = None
    seen: date | None = None
    in_paper: str | None = None


_COLLECTOR = "the light-curve collector of the Fornax notebooks"

# SDSS J015957.64+003310.4, at NED.
_J0159 = (29.9902, 0.5529)

# The objects of the paper's table 5, whose names carry these positions; NED has each within 0.8 arcsec.
_MACLEOD16_OWN = (
    (5.7961, 0.5882),
    (29.9900, 0.5530),
    (36.4837, 0.5075),
    (36.7176, -0.6547),
    (150.5841, 45.1576),
    (155.4681, 46.7544),
    (201.2387, 48.0448),
    (326.5554, 0.1586),
    (343.1682, 1.1663),
    (353.3224, -0.3843),
)

LITERATURE: dict[str, LiteratureSample] = {
    one.key: one
    for one in (
        LiteratureSample(
            "lamassa15", "LaMassa et al. 2015", "2015ApJ...800..144L", "LaMassa 15", "ned",
            conditions=(Near((_J0159,), 3.0),), source="the paper's title: one changing-look quasar",
            expected=1, seen=_SEEN, in_paper="1 changing-look quasar; NED lists other objects, too",
        ),
        LiteratureSample(
            "macleod16", "MacLeod et al. 2016", "2016MNRAS.457..389M", "MacLeod 16", "ned",
            expected=17, seen=_SEEN,
            in_paper="10 changing-look quasars; NED lists 7 objects of comparison, too; the 10 alone: macleod16_own",
        ),
        LiteratureSample(
            "macleod16_own", "MacLeod et al. 2016", "2016MNRAS.457..389M", "MacLeod 16 own", "ned",
            conditions=(Near(_MACLEOD16_OWN, 2.0),), source="the paper's abstract and the names of its objects",
            expected=10, seen=_SEEN, in_paper="10 changing-look quasars, one of them tentative",
        ),
        LiteratureSample(
            "ruan16", "Ruan et al. 2016", "2016ApJ...826..188R", "Ruan 16", "ned",
            expected=3, seen=_SEEN, in_paper="3 changing-look quasars, one of them that of LaMassa et al.",
        ),
        LiteratureSample(
            "yang18", "Yang et al. 2018", "2018ApJ...862..109Y", "Yang 18", "ned",
            expected=31, seen=_SEEN, in_paper="21 new changing-look AGN, and 5 known ones in its table",
        ),
        LiteratureSample(
            "macleod19", "MacLeod et al. 2019", "2019ApJ...874....8M", "MacLeod 19", "vizier", "J/ApJ/874/8/table2",
            conditions=(Above("CLQ?", 0), Above("Nsigma", 3)),
            source="flag and significance of the paper's table 2; -1 is not measured",
            expected=17, seen=_SEEN, in_paper="17 new changing-look quasars of 262 candidates",
        ),
        LiteratureSample(
            "sheng20", "Sheng et al. 2020", "2020ApJ...889...46S", "Sheng 20", "ned",
            expected=7, seen=_SEEN, in_paper="6 turn-off AGN, one of them not robust",
        ),
        LiteratureSample(
            "graham19", "Graham et al. 2020", "2020MNRAS.491.4925G", "Graham 19", "vizier", "J/MNRAS/491/4925/table2",
            expected=111, in_paper="111 changing-state quasars; 73 in the first preprint",
        ),
        LiteratureSample(
            "sanchezsaez21", "Sanchez-Saez et al. 2021", "2021AJ....162..206S", "Sanchez-Saez 21", "ned",
            in_paper="75 candidates, none confirmed by spectra",
        ),
        LiteratureSample(
            "green22", "Green et al. 2022", "2022ApJ...933..180G", "Green 22", "vizier", "J/ApJ/933/180/table2",
            conditions=(Contains("Notes", "CLQ"),), source=f"notes of the paper's table 2, after {_COLLECTOR}",
            expected=19, seen=_SEEN, in_paper="19 changing-look quasars, 15 of them new; each spectrum is a row",
        ),
        LiteratureSample(
            "lyu22", "Lyu et al. 2022", "2022ApJ...927..227L", "Lyu 22", "ned",
            in_paper="68 changing-look AGN of other papers, 11 of them in X-rays",
        ),
        LiteratureSample(
            "lopeznavas22", "Lopez-Navas et al. 2022", "2022MNRAS.513L..57L", "Lopez-Navas 22", "simbad",
            conditions=(OneOf("rvz_redshift", (0.1022, 0.2375, 0.1083, 0.0849), 0.001),),
            source="redshifts of the paper's turn-on objects", expected=4, seen=_SEEN, in_paper="4 turn-on AGN",
        ),
        LiteratureSample(
            "hon22", "Hon et al. 2022", "2022MNRAS.511...54H", "Hon 22", "ned",
            expected=29, seen=_SEEN, in_paper="25 turn-on and 2 turn-off AGN",
        ),
    )
}  # fmt: skip
"""The samples, by their keys."""
