"""Tables of a small survey of HST light curves, as a lake has them: composites that vary, do not, and have nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tasks.sources.hst_timetag.composites import Group

HOSTILE = "</script><script>globalThis.ran = 1</script><img src=x onerror='globalThis.ran = 1'>\x1b[2J\u202e"


class Survey:
    """Rows of hst_bins, hst_statistics and hst_exposures, to which composites are added."""

    def __init__(self) -> None:
        self.bins: list[pa.Table] = []
        self.statistics: list[dict[str, Any]] = []
        self.exposures: list[dict[str, Any]] = []

    def add(
        self,
        target: str,
        *,
        configuration: tuple[str, str, str, int, str] = ("COS", "FUV", "G140L", 1105, "PSA"),
        exposures: int = 2,
        bins: int = 60,
        factor: float | None = 1.0,
        flux: float | None = 1e-15,
        period_s: float | None = None,
        net: float | None = 10.0,
        periodogram: bool | None = None,
    ) -> str:
        """Add a composite with its exposures; return its id."""
        instrument, detector, grating, cenwave, aperture = configuration
        about = {
            "target_name": target.upper(),
            "canonical_name": target,
            **dict(zip(("instrument", "detector", "grating", "cenwave", "aperture"), configuration, strict=True)),
        }
        source_id = Group(instrument, detector, target, grating, cenwave, aperture).source_id
        for dataset in range(1, exposures + 1):
            exposure_id = f"l{len(self.exposures):07d}q"
            self.exposures.append({"source_id": exposure_id, "product": "exposure", "exposure_s": 2.0 * bins, **about})
            times = 2.0 * np.arange(bins)
            wave = np.zeros(bins) if period_s is None else np.sin(2 * np.pi * times / period_s)
            rate = None if net is None else net * (1 + wave)
            columns: dict[str, Any] = {
                "gross": None if rate is None else 2 * rate,
                "background": None,
                "net": rate,
                "flux": None if flux is None or rate is None else flux * rate,
                "error": None if rate is None else np.sqrt(2 * rate),
            }
            arrays = {
                name: pa.nulls(bins, pa.float64()) if values is None else pa.array(values)
                for name, values in columns.items()
            }
            self.bins.append(
                pa.table(
                    {
                        "source_id": [source_id] * bins,
                        "product": ["composite"] * bins,
                        "dataset": pa.array([dataset] * bins, pa.int32()),
                        "exposure_id": [exposure_id] * bins,
                        "times_s": times,
                        "mjd": 57_000.0 + dataset + times / 86_400,
                        "bin_s": [2.0] * bins,
                        "exposure_fraction": [1.0] * bins,
                        **arrays,
                    }
                )
            )
        exposure_s = 2.0 * bins * exposures
        self.exposures.append({"source_id": source_id, "product": "composite", "exposure_s": exposure_s, **about})
        numbers = dict.fromkeys(("mean", "pearson_r", "pearson_p"), 0.25)
        self.statistics.append(
            {
                "source_id": source_id,
                "product": "composite",
                "total": 1000,
                **(numbers if factor is not None else dict.fromkeys(numbers)),
                "poisson_factor": factor,
                "periodogram": periodogram,
            }
        )
        return source_id

    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        """Return statistics, exposures and bins."""
        return pa.Table.from_pylist(self.statistics), pa.Table.from_pylist(self.exposures), pa.concat_tables(self.bins)
