"""View rxte: light curves of targets with the energy range of each observation; and table channels."""

from __future__ import annotations

from typing import Any

from lake.model.declared import ViewNote, Views
from lake.model.table import Column, Table

# fmt: off
CHANNELS = Table(
    "channels",
    "an absolute channel of RXTE's PCA, in a gain epoch",
    (
        Column("epoch", "INTEGER", "Gain epoch", ucd="meta.number", required=True, low=1, high=5),
        Column("detector", "VARCHAR", "Detectors that the energies are of: PCU0-4, PCU0 or PCU1-4", ucd="instr.det",
            required=True),
        Column("channel", "INTEGER", "Absolute channel", ucd="meta.number", required=True, low=0, high=255),
        Column("std2_channel", "INTEGER", "Channel of Standard-2 data that it is packed into", ucd="meta.number",
            required=True, low=0, high=128),
        Column("emin_kev", "DOUBLE", "Lower edge of the Standard-2 channel; NULL where nobody says it", unit="keV",
            ucd="em.energy;stat.min", low=0),
        Column("emax_kev", "DOUBLE", "Upper edge of the Standard-2 channel", unit="keV", ucd="em.energy;stat.max",
            required=True, low=0),
    ),
    key=("epoch", "detector", "channel"),
    sort=("epoch", "detector", "channel"),
)
# fmt: on

# One light curve for each target and band over sixteen years. Each observation has its own energy range, since the
# energies of a channel change with the gain epoch, and its own set of PCUs. Table exposures has them as JSON, by band.
_STATEMENT = """
CREATE OR REPLACE VIEW rxte AS
    WITH observations AS (
        SELECT targets.target_id, targets.name, matches.separation_arcsec, matches.archive, matches.release,
            matches.hpx29, matches.source_id, from_json(exposures.details, '{"target_name": "VARCHAR", '
            || '"epoch": "INTEGER", "pcu_count": "INTEGER", "pcus": "VARCHAR", "is_slew": "BOOLEAN", '
            || '"is_scan": "BOOLEAN", "energies": '
            || '"MAP(VARCHAR, STRUCT(emin_kev DOUBLE, emax_kev DOUBLE, nominal_kev DOUBLE[]))"}') AS observation
        FROM targets JOIN matches ON matches.target_id = targets.target_id
        LEFT JOIN exposures ON exposures.archive = matches.archive AND exposures.release = matches.release
            AND exposures.exposure_id = matches.source_id
        WHERE matches.archive IN ('rxte', 'rxte_pca')
    ),
    curves AS (
        SELECT observations.*, bands.band, observation.energies[bands.band] AS energy
        FROM observations JOIN bands ON bands.archive = observations.archive
    )
    SELECT curves.target_id, curves.name, curves.separation_arcsec, curves.source_id AS obsid, curves.release,
        curves.band, rows.mjd, rows.bmjd_tdb, rows.flux AS rate, rows.flux_err AS rate_err, rows.unit, rows.counts,
        rows.exposure_s, rows.detected, rows.good, rows.quality, curves.observation.epoch, curves.observation.pcu_count,
        curves.observation.pcus, curves.energy.emin_kev, curves.energy.emax_kev,
        curves.energy.nominal_kev[1] AS nominal_emin_kev, curves.energy.nominal_kev[2] AS nominal_emax_kev,
        curves.observation.is_slew, curves.observation.is_scan, curves.observation.target_name AS observed_as
    FROM curves JOIN lightcurves AS rows ON rows.archive = curves.archive AND rows.release = curves.release
        AND rows.hpx29 = curves.hpx29 AND rows.source_id = curves.source_id AND rows.band = curves.band
    ORDER BY curves.target_id, curves.band, curves.release, rows.mjd
"""

_KEV: dict[str, Any] = {"type": "DOUBLE", "unit": "keV"}
_COLUMNS = (
    Column("obsid", "VARCHAR", "Observation, by its ObsID", ucd="meta.id;obs"),
    Column("rate", "FLOAT", "Count rate, in unit", ucd="phot.count;arith.rate"),
    Column("rate_err", "FLOAT", "One standard deviation of rate", ucd="stat.error;phot.count"),
    Column("unit", "VARCHAR", "Unit of rate and rate_err", ucd="meta.unit"),
    Column("epoch", "INTEGER", "Gain epoch of the observation", ucd="meta.number"),
    Column("pcu_count", "INTEGER", "Detectors (PCUs) that were on", ucd="meta.number;instr.det"),
    Column("pcus", "VARCHAR", "Which of them", ucd="instr.det"),
    Column("emin_kev", description="Lower edge of the band in this gain epoch", ucd="em.energy;stat.min", **_KEV),
    Column("emax_kev", description="Upper edge of the band in this gain epoch", ucd="em.energy;stat.max", **_KEV),
    Column("nominal_emin_kev", description="Lower edge that the band is named for", ucd="em.energy;stat.min", **_KEV),
    Column("nominal_emax_kev", description="Upper edge that the band is named for", ucd="em.energy;stat.max", **_KEV),
    Column("is_slew", "BOOLEAN", "A slew", ucd="meta.code"),
    Column("is_scan", "BOOLEAN", "A raster scan", ucd="meta.code"),
    Column("observed_as", "VARCHAR", "Name of the target in the observation", ucd="meta.id;src"),
)
VIEWS = Views(
    statements=(_STATEMENT,),
    notes={
        "rxte": ViewNote(
            text="RXTE's light curves by target, over all observations, with gain epochs, detectors and energies. The "
            "same channels have other energies in each gain epoch: see table channels.",
            example="SELECT mjd, rate, rate_err, obsid, epoch FROM rxte WHERE name = 'A' AND band = 'pca_a' AND good",
            columns=_COLUMNS,
        )
    },
)
