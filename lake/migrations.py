"""How a lake of an older schema becomes one of this: SQL by the version that it leads to."""

from __future__ import annotations

from collections.abc import Sequence

from lake.schema import TABLES
from lake.table import add_statements, create_statements

# Schema changes by the version that they lead to: SQL to run on a lake of the version before.
MIGRATIONS: dict[int, Sequence[str]] = {
    2: add_statements(TABLES["bands"], "ab_minus_mag", "ab_source"),
    3: [
        *add_statements(
            TABLES["sources"], "ra_err", "dec_err", "parallax", "parallax_err", "pm_ra_err", "pm_dec_err",
            "astfit_chisq", "astfit_params", "uwe", "duplicate", "left_out",
        ),
        *add_statements(TABLES["lightcurves"], "x", "y", "sky", "cnf_ctr", "diff_fit_ap", "ext"),
        *add_statements(TABLES["exposures"], "seeing_arcsec", "sky_level", "ellipticity"),
    ],
    4: create_statements(TABLES["channels"]),
    5: (),  # views alone, which every migration makes anew
    6: add_statements(TABLES["ledger"], "n_found", "retries", "requests"),
}  # fmt: skip
