"""Benchmarks: `python -m benchmarks.NAME` prints tables, then one JSON object as its last line.

==================  ================================================================================================
`lake`              point and cone queries against globs of Parquet files and pandas; commits and compaction
`peers`             light curves by id, crossmatch, nights, what brightened: against LSDB, DuckDB and pandas
`targets`           registering many targets
`pull`, `tap`       pulls of IceCube, and of archives with TAP, against plain loops over the same service
`parquet`           ZTF, unWISE and Pan-STARRS1 against LSDB (extra `benchmarks`)
`fits`              TESS files against lightkurve (extra `test`)
`rxte`, `virac`     extraction of the surveys against plain loops
`exports`           HATS collections and Fornax frames: time and memory
`match`             matching two catalogues, against astropy, DuckDB and LSDB
`refresh`           a refresh of all archives side by side, against each alone
`figures`           drawing the figures of a sample
`hst`               light curves of COS exposures against loops with astropy and numpy
`samples`           registering large samples of SDSS
`python`            light curves of 1,000 targets by one call against 1,000 calls; what forms cost
`damage`            flipped bits: what queries, `verify` and `compact` find, and what checksums cost
`orchestration`     what Prefect and Dask add to a granule (extra `dask`)
`growth`            the cost of 500,000 targets, extrapolated
`core_run`          a run of the core archives for 200,000 targets, killed once and resumed (hours)
==================  ================================================================================================

`--quick` takes a smaller sample. `benchmarks.measure` is the one place for measuring time and memory.
"""
