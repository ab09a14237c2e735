"""The page of archives and surveys: what each declares, as `lightlake archives NAME` prints it."""

from __future__ import annotations

from deployments.documentation.markdown import cell, code, page, prose, table
from tasks.archives.described import bands_table, facts
from tasks.sources.base import Origin

_HEAD = """
# Archives

These are the archives and surveys, with what one must know of their numbers. `lightlake archives NAME` prints the same
of one, and `lightlake archives --json` is for scripts. Archives are asked for targets by
[`lightlake pull`](commands.md#lightlake-pull); surveys are extracted from their files, each by a command of its own.

What is the same for all of them is on [Pulls](pulls.md): when they are asked again, proper motion, odd numbers,
releases, and what happens when one misbehaves. `mjd` is the archive's own time, in the scale and at the place that are
named here; `bmjd_tdb` is the same instant in TDB at the barycentre, and compares all of them.
"""
# What is short goes into a list, what is said in sentences into paragraphs of their own.
_PARAGRAPHS = {
    "access": "How it is reached",
    "matching": "What belongs to a target",
    "quality": "What is good",
    "corrections": "What is corrected",
    "notes": "More",
}
_HEADS = {"mag_system": "magnitudes", "zero_point_jy": "zero point, Jy", "wavelength_nm": "wavelength, nm"}
# More bands than this are listed with what they have in common.
_MANY = 40
_CODE = {"endpoint", "parameters", "command"}


def described(origin: Origin) -> str:
    """Return the section of an archive or a survey."""
    known = facts(origin, origin.public_url)
    short = [
        f"- {name}: {code(value) if name in _CODE else _cited(value) if name == 'cite' else prose(value)}"
        for name, value in known.items()
        if name not in _PARAGRAPHS
    ]
    long = [f"**{heading}.** {prose(known[name])}" for name, heading in _PARAGRAPHS.items() if name in known]
    return page(f"### {origin.name}", prose(origin.title) + ".", "\n".join(short), *long, _bands(origin))


def _cited(bibcode: str) -> str:
    return f"[{bibcode}](https://ui.adsabs.harvard.edu/abs/{bibcode.replace('&', '%26')})"


def _bands(origin: Origin) -> str:
    rows = bands_table(origin).to_pylist()
    if len(rows) > _MANY:
        alike = dict[tuple[str, ...], list[str]]()
        for row in rows:
            kind = tuple(_shown(row[one]) for one in ("unit", "mag_system", "zero_point_jy"))
            wavelength = _shown(row["wavelength_nm"])
            alike.setdefault(kind, []).append(code(row["band"]) + (f" ({wavelength} nm)" if wavelength else ""))
        listed = page(
            *(
                f"Bands with fluxes in {unit}, {system} magnitudes, {zero_point} Jy at 0 mag: {', '.join(names)}."
                for (unit, system, zero_point), names in alike.items()
            )
        )
    else:
        head = [_HEADS.get(name, name) for name in rows[0]]
        listed = table(
            head, [[code(row.pop("band")), *(prose(_shown(value)) for value in row.values())] for row in rows]
        )
    sources = dict.fromkeys(
        text for band in origin.bands for text in (band.zero_point_source, band.ab_source) if text is not None
    )
    whence = "Zero points are from: " + "; ".join(prose(cell(one)) for one in sources) + "." if sources else ""
    return page(listed, whence)


def _in_cell(name: str, value: object) -> str:
    return code(value) if name in ("band", "unit") else prose(_shown(value))


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def archives_page() -> str:
    """Return the page of all archives and surveys."""
    from tasks.sources.registry import REGISTRY, SURVEYS

    return page(
        _HEAD,
        "## Archives, asked for targets",
        *(described(archive) for _, archive in sorted(REGISTRY.items())),
        "## Surveys, extracted from files",
        *(described(survey.origin) for _, survey in sorted(SURVEYS.items())),
    )
