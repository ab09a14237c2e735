"""SQL of the views in the form of the Fornax light-curve collector: objectid, label, band, time, flux, err."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lake.model.declared import Declaration, FornaxRows, ViewNote
from lake.model.table import Column, listed, quoted

# Bands with these endings are apertures, or fluxes with their systematics in them, beside a better one. The collector
# does not have them.
IS_BEST_BAND = r"NOT regexp_matches(rows.band, '_(ap|sap|raw)$')"

_ROWS = """
    SELECT {objectid} AS objectid, known.label, coalesce({band}bands.fornax_band, rows.band) AS band,
        {time} AS time, {flux} AS flux, {err} AS err{unit}
    FROM {rows} AS rows
    JOIN ({labels}) AS known USING (target_id)
    LEFT JOIN bands ON bands.archive = rows.archive AND bands.band = rows.band{joins}
    WHERE {where}
"""

# A flux that FornaxRows makes a logarithm of, the energies of neutrinos, has that in its unit.
_UNIT = ", CASE WHEN rows.unit = 'GeV' THEN 'log(GeV)' ELSE rows.unit END AS unit"

_FORMER = "\n    LEFT JOIN ({names}) AS former ON former.archive = rows.archive AND former.band = rows.band"

_NUMBERS = """
CREATE OR REPLACE VIEW fornax_ids AS
    SELECT row_number() OVER (ORDER BY added_at, target_id) AS objectid, target_id, name, ra, dec
    FROM targets
"""

_DIFFERENCES = (
    "objectid is target_id, above 2^53: programs that take it for a float change it (view fornax_ids numbers targets "
    "from 1). label: the labels of a target in several samples, joined by '; '. time: MJD as the archive reports it, "
    "in its own scale and frame. unit: of flux and err; log(GeV): the logarithm of an energy. Unlike the collector, "
    "all neutrinos that match are here, not the 3 of highest energy; all bands of an archive, not chosen ones; all "
    "samples of TESS, Kepler and K2 at each cadence that was pulled, not every thirtieth; fluxes of 0 and below; and "
    "triggers have no flux."
)
_COLUMNS = (
    Column("objectid", "BIGINT", "Target: its target_id, or its number in view fornax_ids", ucd="meta.id"),
    Column("label", "VARCHAR", "Labels of the target, joined by '; '", ucd="meta.code.class"),
    Column("band", "VARCHAR", "Band, by the collector's name; else the lake's", ucd="instr.bandpass"),
    Column("time", "DOUBLE", "MJD as the archive reports it, in its own scale and frame", unit="d", ucd="time.epoch"),
    Column("flux", "DOUBLE", "Flux, in unit", ucd="phot.flux"),
    Column("err", "DOUBLE", "One standard deviation of flux", ucd="stat.error;phot.flux"),
    Column("unit", "VARCHAR", "Unit of flux and err", ucd="meta.unit"),
)
FORNAX_NOTES = {
    "fornax_ids": ViewNote(
        text="Numbers of targets from 1, in the order in which they were added: those of older targets stay when "
        "others are added, but not when targets are removed.",
        example="SELECT objectid, name FROM fornax_ids",
        columns=(Column("objectid", "BIGINT", "Number of the target", ucd="meta.id"),),
        tables=("targets",),
    ),
    "fornax": ViewNote(
        text=f"Good rows in the form of the Fornax light-curve collector. {_DIFFERENCES}",
        example="SELECT band, count(*) FROM fornax GROUP BY band",
        columns=_COLUMNS,
    ),
    "fornax_v24": ViewNote(
        text="View fornax with the band names of 2024, which the machine-learning notebooks read. "
        "fornax_v24(exploded := true) has a row for each label of a target, fornax_v24(numbered := true) the objectid "
        f"of fornax_ids. {_DIFFERENCES}",
        example="FROM fornax_v24(exploded := true, numbered := true)",
        arguments={"exploded": "a row for each label of a target", "numbered": "objectid as in fornax_ids"},
        columns=_COLUMNS,
    ),
    "fornax_as_published": ViewNote(
        text="Rows with the numbers that the Fornax light-curve collector published, mistakes included; objectid and "
        "label as in view fornax.",
        example="SELECT band, min(time) FROM fornax_as_published GROUP BY band",
        columns=_COLUMNS[:-1],
    ),
}


def labels(*, exploded: bool, sample: str | None = None) -> str:
    """Return the SQL of targets and their labels; a label that is missing is the name of the sample.

    Parameters
    ----------
    exploded
        A row for each label, instead of labels joined by "; ".
    sample
        SQL of the name of a sample, such as a parameter: only its targets, and the labels that it gives them.
    """
    label = "coalesce(label, sample)"
    where = "" if sample is None else f" WHERE sample = {sample}"
    if exploded:
        return f"SELECT DISTINCT target_id, {label} AS label FROM labels{where}"
    joined = f"string_agg(DISTINCT {label}, '; ' ORDER BY {label})"
    return f"SELECT target_id, {joined} AS label FROM labels{where} GROUP BY target_id"


def fornax_rows(
    declared: Iterable[Declaration],
    *,
    rows: str = "target_lightcurves",
    v24: bool = False,
    known: str | None = None,
    objectid: str = "rows.target_id",
    joins: str = "",
    also: str = "true",
) -> str:
    """Return the SQL of the rows of view fornax, or of the same with other labels, ids or names.

    Parameters
    ----------
    declared
        What the installed sources declare.
    rows
        A relation with the columns of target_lightcurves.
    v24
        Bands have their names of 2024.
    known
        SQL of targets and labels; None: joined ones.
    objectid
        SQL of the id.
    joins
        More joins, which that needs.
    also
        One more condition.
    """
    found = list(declared)
    conditions = [one.views.fornax_where for one in found if one.views.fornax_where]
    parts = FornaxRows(rows=rows, where=" AND ".join(["rows.good AND rows.detected", IS_BEST_BAND, *conditions, also]))
    names = [
        f"({quoted(one.archive)}, {quoted(band)}, {quoted(name)})"
        for one in found
        for band, name in one.views.fornax_v24.items()
    ]
    table = f"FROM (VALUES {', '.join(names)}) AS names (archive, band, v24)" if names else _NO_NAMES
    return _ROWS.format(
        **vars(parts),
        objectid=objectid,
        labels=known or labels(exploded=False),
        unit=_UNIT,
        band="former.v24, " if v24 else "",
        joins=(_FORMER.format(names=table) if v24 else "") + joins,
    )


_NO_NAMES = "SELECT '' AS archive, '' AS band, '' AS v24 WHERE false"

# The labels of both kinds, of which a macro takes one.
_EITHER = (
    f"SELECT *, true AS is_exploded FROM ({labels(exploded=True)}) "
    f"UNION ALL SELECT *, false FROM ({labels(exploded=False)})"
)


def fornax_statements(declared: Sequence[Declaration]) -> list[str]:
    """Return the SQL that makes the views and macros."""
    asked = fornax_rows(
        declared,
        v24=True,
        known=_EITHER,
        objectid="CASE WHEN numbered THEN fornax_ids.objectid ELSE rows.target_id END",
        joins="\n    JOIN fornax_ids USING (target_id)",
        also="known.is_exploded = exploded",
    )
    return [
        _NUMBERS,
        f"CREATE OR REPLACE VIEW fornax AS{fornax_rows(declared)}",
        f"CREATE OR REPLACE VIEW fornax_v24 AS{fornax_rows(declared, v24=True)}",
        f"CREATE OR REPLACE MACRO fornax_v24(exploded := false, numbered := false) AS TABLE{asked}",
        _as_published(declared),
    ]


def _as_published(declared: Iterable[Declaration]) -> str:
    special = [one for one in declared if one.views.as_published is not None]
    names = listed(one.archive for one in special)
    others = FornaxRows(
        rows=f"(SELECT * FROM target_lightcurves WHERE archive NOT IN ({names}))",
        where="rows.good AND rows.detected AND rows.flux IS NOT NULL",
    )
    parts = [others, *(part for one in special for part in one.views.as_published or ())]
    selects = [
        _ROWS.format(**vars(part), objectid="rows.target_id", labels=labels(exploded=False), unit="", band="", joins="")
        for part in parts
    ]
    return "CREATE OR REPLACE VIEW fornax_as_published AS" + " UNION ALL ".join(selects)
