"""Objects of the stand-in for SIMBAD with positions (ICRS, epoch 2000.0), motions and redshifts like the real ones.

They are for tests: do not take numbers from here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """What SIMBAD's table `basic` has of an object.

    Parameters
    ----------
    names
        Its identifiers, the main one first, spelt as the service spells them.
    ra, dec
        Degrees.
    otype
        Short code of its type.
    pmra, pmdec
        Proper motion, mas/yr.
    rvz_redshift, rvz_type
        Redshift, and what was measured: z, v or c.
    coo_err_maj
        Error of the position, mas.
    """

    names: tuple[str, ...]
    ra: float | None
    dec: float | None
    otype: str
    pmra: float | None = None
    pmdec: float | None = None
    rvz_redshift: float | None = None
    rvz_type: str | None = None
    coo_err_maj: float | None = 0.1


KNOWN = (
    Known(
        ("3C 273", "PG 1226+023", "QSO B1226+0219", "[HB89] 1226+023", "2MASS J12290669+0203085", "NAME 3C 273"),
        187.27791594049, 2.05238824055, "BLL", rvz_redshift=0.158339, rvz_type="z",
    ),
    Known(
        ("Mrk  421", "QSO B1101+384", "UGC  6132", "2MASS J11042731+3812317"),
        166.11380874, 38.20883292, "BLL", rvz_redshift=0.030021, rvz_type="z",
    ),
    Known(
        ("* eta Car", "V* eta Car", "HD  93308", "2MASS J10450360-5941040"),
        161.26477, -59.68443, "Em*", -11.0, 4.1, -0.000083, "v", 20.0,
    ),
    Known(
        ("NAME Barnard's star", "GJ   699", "HIP  87937", "Gaia DR3 4472832130942575872"),
        269.4520769586187, 4.693364966576667, "BY*", -801.551, 10362.394, -0.000368, "v",
    ),
    Known(("* k Tau", "HD  26912"), 64.0, 8.9, "SB*", 20.0, -12.0),
    Known(("* kap01 Tau", "HD  28052", "V* K Tau"), 66.5, 15.6, "dS*"),
    # Its position is that of an X-ray source, and one has none.
    Known(("1RXS J123456.7+654321", "NAME Coarse"), 188.736, 65.7225, "X", coo_err_maj=12000.0),
    Known(("NAME Nowhere",), None, None, "ev", coo_err_maj=None),
)  # fmt: skip
"""Objects that names are looked up for."""
