"""TESS, Kepler and K2: the light curves of their pipelines at MAST, or in a folder or bucket that mirrors it.

A target whose name is a number of TIC, KIC or EPIC, such as "TIC 25155310", has the light curves of that number,
wherever they are; any other target those of every source within the radius. One search serves a whole granule. Of what
is found one file a sector, quarter or campaign is taken: see mast_choice. Files come from the cache as far as it has
them, so that a target that is pulled again costs a search and the files that are new.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lake.errors import ArchiveError, GranuleRejected, TruncatedAnswer
from lake.model.schema import TABLES
from lake.science.motion import positions_at
from lake.science.sky import match, separation_arcsec
from lake.settings import Settings
from lake.text import counted
from tasks.sources.base import Archive, FetchResult, Granule
from tasks.sources.collector import Collector, Key
from tasks.sources.hats import sources_and_matches
from tasks.sources.tess_kepler import mast_mirror
from tasks.sources.tess_kepler.mast_choice import AUTHORS, KEPLER_CADENCES, TESS_CADENCES_S, Source, choose, source_of
from tasks.sources.tess_kepler.mast_files import Files, Found
from tasks.sources.tess_kepler.mast_fits import read_product, remark_of, tables_of
from tasks.sources.tess_kepler.mast_products import BANDS, Product
from tasks.sources.tess_kepler.mast_search import PORTAL_TARGETS, search
from tasks.sources.tess_kepler.mast_splits import SEARCHES, Question
from tasks.sources.tess_kepler.mast_tap import SETTING as TAP_SETTING
from tasks.sources.tess_kepler.views import VIEWS

Floats = NDArray[np.float64]

NAME = "tess_kepler"
RELEASE = "MAST"

# Positions of TIC, KIC and EPIC are of this epoch: Stassun et al. 2019, AJ 158, 138; Brown et al. 2011, AJ 142, 112.
EPOCH_YR = 2000.0

# Files of a granule together, 30 sectors of SPOC: a cadence takes 100 bytes there and becomes two rows of 150 each,
# which are held twice while they are staged. A target with more than that is pulled by itself.
MOST_BYTES = 60_000_000
# Of a file whose size is not known: a SPOC light curve of a sector.
_USUAL_BYTES = 2_000_000

_NAMED = re.compile(r"(TIC|KIC|EPIC)[ _-]*(\d{1,16})", re.IGNORECASE)


def fetch(granule: Granule, settings: Settings) -> FetchResult:
    """Get the light curves of a batch of targets.

    Parameters
    ----------
    granule
        Targets; parameters radius_arcsec, authors, kepler_cadence, tess_cadence_s.
    settings
        Endpoint (MAST's address, or a folder or s3:// with its files), cache and time-outs.

    Raises
    ------
    ArchiveError
        If MAST or the mirror does not answer, not as it should, or does not give a file; if a parameter makes no sense.
    TruncatedAnswer
        If the search's answer is not all, or files of several targets are more than a granule holds.
    """
    url = ARCHIVE.endpoint_url(settings)
    parameters = granule.parameters
    _check(parameters, url)
    radius = parameters["radius_arcsec"]
    ids = named_ids(granule.targets)
    ra, dec = places_of(granule.targets)
    by_place = np.flatnonzero([one is None for one in ids])
    numbers: dict[str, list[int]] = {}
    for one in sorted({one for one in ids if one is not None}):
        numbers.setdefault(one[0], []).append(one[1])
    places, odd = (ra[by_place], dec[by_place]), list[str]()
    how = (url, settings.endpoints.get(TAP_SETTING), radius, tuple(parameters["authors"]))
    asked = Question.of(how, (one for one in ids if one is not None), places[0].tolist(), places[1].tolist())
    is_web = url.startswith(("http://", "https://"))
    if not is_web:
        found = mast_mirror.find(url, settings, numbers, places, radius, NAME)
    elif (before := SEARCHES.find(asked)) is not None:
        found, odd = before
    else:
        found = search(url, settings, numbers, places, radius, NAME, parameters["authors"], odd)
    rows = rows_of(found, ids, ra, dec, radius)
    chosen = choose(
        (file for file in found if source_of(file.named) in rows),
        parameters["authors"],
        kepler_cadence=parameters["kepler_cadence"],
        tess_cadence_s=parameters["tess_cadence_s"],
    )
    size = sum(file.size or _USUAL_BYTES for file in chosen)
    if size > MOST_BYTES and granule.targets.num_rows > 1:
        if is_web:
            SEARCHES.keep(asked, (found, odd))
        message = f"{counted(len(chosen), 'file')} of {size / 1e6:.0f} MB, more than a granule holds"
        raise TruncatedAnswer(message, archive=NAME, endpoint=url)
    SEARCHES.forget(asked)
    with Files(url, settings, NAME) as files:
        made = harvest(granule, rows, _read(files, chosen), url)
    return replace(made, remark="; ".join(filter(None, [*odd, made.remark])) or None)


def plan(archive: Archive, targets: pa.Table, settings: Settings, parameters: Mapping[str, Any]) -> list[Granule]:
    """Cut targets into granules: up to `batch_size` of them are shared out to all workers, more are searched together.

    Few go to the portal, `PORTAL_TARGETS` at a time; granules of more targets to MAST's TAP service.
    """
    n = targets.num_rows
    pieces = -(-n // (PORTAL_TARGETS if n <= archive.batch_size else archive.batch_size))
    edges = [n * piece // max(pieces, 1) for piece in range(pieces + 1)]
    parts = (targets.slice(start, end - start) for start, end in pairwise(edges))
    return [Granule(archive.name, archive.release, dict(parameters), part) for part in parts]


def named_ids(targets: pa.Table) -> list[Source | None]:
    """Return the catalogue and number in a target's name, such as KIC 8462852; None where it has none."""
    numbered = [_NAMED.fullmatch((name or "").strip()) for name in targets["name"].to_pylist()]
    return [None if one is None else (one[1].upper(), int(one[2])) for one in numbered]


def places_of(targets: pa.Table) -> tuple[Floats, Floats]:
    """Return where targets were at the epoch of TIC, KIC and EPIC, as far as their proper motion is known."""
    ra, dec, _ = positions_at(targets, EPOCH_YR)
    return ra, dec


def rows_of(
    found: Sequence[Found], ids: Sequence[Source | None], ra: Floats, dec: Floats, radius_arcsec: float
) -> dict[Source, set[int]]:
    """Return which targets each source belongs to, by their rows; sources that belong to none are left out.

    Parameters
    ----------
    found
        Files, with positions where they are known. A source is near a target if any of its files is.
    ids
        Of each target, the source that it is; None for those that are looked for by place.
    ra, dec
        Of each target.
    """
    rows: dict[Source, set[int]] = {}
    there = {source_of(file.named) for file in found}
    for row, one in enumerate(ids):
        if one in there:
            rows.setdefault(one, set()).add(row)
    by_place = np.flatnonzero([one is None for one in ids])
    placed = [file for file in found if file.ra is not None and file.dec is not None]
    at = np.array([(file.ra, file.dec) for file in placed], np.float64).reshape(-1, 2)
    near, files, _ = match(ra[by_place], dec[by_place], at[:, 0], at[:, 1], radius_arcsec)
    for row, file in zip(by_place[near].tolist(), files.tolist(), strict=True):
        rows.setdefault(source_of(placed[file].named), set()).add(row)
    return rows


def harvest(
    granule: Granule,
    rows: Mapping[Source, set[int]],
    products: Iterable[tuple[str, Product | GranuleRejected]],
    url: str,
) -> FetchResult:
    """Convert light curves to tables of the lake.

    Parameters
    ----------
    rows
        Targets of each source, as from `rows_of`.
    products
        Files, by name, as they are read, all of a source together. What was rejected goes into the remark.
    """
    tables: dict[str, list[pa.Table]] = {name: [] for name in ("sources", "lightcurves", "exposures")}
    slim: list[Product] = []
    rejected: list[str] = []
    sources: list[Source] = []
    for source, group in groupby(
        _whole(products, rejected), key=lambda one: (one.pipeline.mission.catalogue, one.target)
    ):
        light = list(group)
        for name, table in tables_of(light, granule.archive, granule.release).items():
            tables[name].append(table)
        slim += [_slim(product) for product in light]
        sources.append(source)
    remarks = [remark_of(slim)]
    if rejected:
        remarks.append(f"files rejected: {len(rejected)} ({'; '.join(rejected)})")
    remark = "; ".join(filter(None, remarks)) or None
    if not sources:
        empty = {name: TABLES[name].empty() for name in ("sources", "matches", "lightcurves")}
        return FetchResult(**empty, endpoint=url, remark=remark)
    joined = {name: pa.concat_tables(parts).unify_dictionaries() for name, parts in tables.items()}
    whole, matches = _matched(granule.targets, joined["sources"], [rows[source] for source in sources])
    return FetchResult(whole, matches, joined["lightcurves"], joined["exposures"], endpoint=url, remark=remark)


def _check(parameters: Mapping[str, Any], url: str) -> None:
    """Raise an ArchiveError if parameters make no sense."""
    allowed = {"authors": tuple(AUTHORS), "kepler_cadence": KEPLER_CADENCES, "tess_cadence_s": TESS_CADENCES_S}
    for name, choices in allowed.items():
        given = parameters[name] if name == "authors" else [parameters[name]]
        if not given or any(one not in choices for one in given):
            raise ArchiveError(
                f"parameter {name} cannot be {parameters[name]!r}",
                archive=NAME,
                endpoint=url,
                hint=f"it is of {', '.join(str(one) for one in choices)}",
            )
    if not 0 <= parameters["radius_arcsec"] <= 3600:
        raise ArchiveError(
            f"parameter radius_arcsec cannot be {parameters['radius_arcsec']:g}",
            archive=NAME,
            endpoint=url,
            hint="it is of 0 to 3600",
        )


def _read(files: Files, chosen: Sequence[Found]) -> Iterator[tuple[str, Product | GranuleRejected]]:
    """Read files in order; yield each, or why it was rejected, with its name."""
    for file, path in files.fetch(chosen):
        try:
            yield file.name, read_product(path, file.name)
        except GranuleRejected as error:
            yield file.name, error
        except OSError as error:
            message = f"{file.name} cannot be read: {error}"
            raise ArchiveError(message, archive=NAME, endpoint=str(path), transient=True) from error


def _whole(products: Iterable[tuple[str, Product | GranuleRejected]], rejected: list[str]) -> Iterator[Product]:
    """Yield the files that were not rejected, and note the others."""
    seen: dict[str, str] = {}
    for name, product in products:
        if isinstance(product, GranuleRejected):
            rejected.append(product.reason)
        elif (first := seen.setdefault(product.exposure_id, name)) != name:
            rejected.append(f"{name}: it is of {product.exposure_id}, as {first} is")
        else:
            yield product


def _slim(product: Product) -> Product:
    """Return a light curve without its values, for remarks only."""
    nothing = np.empty(0)
    return replace(
        product,
        time=product.time[:1].copy(),
        curves={},
        cadence=nothing,
        quality=nothing,
        is_good=np.empty(0, bool),
        background=nothing,
        x=nothing,
        y=nothing,
        details={},
    )


def _matched(targets: pa.Table, sources: pa.Table, rows: Sequence[set[int]]) -> tuple[pa.Table, pa.Table]:
    """Return the tables sources and matches for the targets of each source."""
    there = [sources[name].to_numpy() for name in ("ra", "dec")]
    pairs = [(row, source) for source, ones in enumerate(rows) for row in ones]
    row, source = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    ra, dec = places_of(targets)
    separation = separation_arcsec(ra[row], dec[row], there[0][source], there[1][source])
    order = np.lexsort((source, separation, row))
    ids = sources["source_id"].combine_chunks()
    return sources_and_matches(targets, ids, there[0], there[1], (row[order], source[order], separation[order]))


ARCHIVE = Archive(
    name=NAME,
    views=VIEWS,
    former_names={"lightkurve": {"lightcurves": {"cadence_s": "exposure_s", "exposure_s": "NULL::FLOAT"}}},
    title="TESS, Kepler and K2 light curves",
    release=RELEASE,
    endpoint="https://mast.stsci.edu",
    extra_endpoints={"mast_files": "", TAP_SETTING: ""},  # as in mast_bucket, which takes longer to import
    time_scale="TDB",
    time_frame="barycentre",
    bands=BANDS,
    radius_arcsec=1.0,
    batch_size=100,  # two queries over TAP for places, one for files; a task has four times as many targets
    plan=plan,
    patient=True,
    cadence="live",
    max_age_days=7.0,
    licence="Public; see https://archive.stsci.edu/publishing/data-use. To cite for High Level Science Products: QLP, "
    "doi:10.17909/t9-r086-e880 (CC BY 4.0); TESS-SPOC, doi:10.17909/t9-wpz1-8s54; EVEREST, Luger et al. 2018, AJ 156, "
    "99; K2SFF, Vanderburg and Johnson 2014, PASP 126, 948",
    acknowledgement="This paper includes data collected by the TESS, Kepler and K2 missions, obtained from the MAST "
    "data archive at the Space Telescope Science Institute (STScI). Funding for the TESS mission is provided by the "
    "NASA Explorer Program, for Kepler and K2 by the NASA Science Mission Directorate. STScI is operated by the "
    "Association of Universities for Research in Astronomy, Inc., under NASA contract NAS 5-26555.",
    bibcode="2015JATIS...1a4003R",
    access="MAST's portal searches for up to 100 targets, its TAP service for more, 50 positions to a query. "
    "LIGHTLAKE_ENDPOINTS__MAST_TAP is another address of that service; empty, the portal searches for all. Then one "
    "FITS file comes for each sector, quarter or campaign. Files stay in the cache with "
    "checksums: a later pull downloads only new ones, and a broken download continues where it stopped. "
    "LIGHTLAKE_ENDPOINTS__TESS_KEPLER may also be a folder or an s3:// prefix: s3://stpubdata, a part or copy of it, "
    "or any tree of files with MAST's names. LIGHTLAKE_ENDPOINTS__MAST_FILES=s3://stpubdata searches at MAST and "
    "takes the files from the bucket; files missing there come from MAST.",
    matching="A target whose name is a number of TIC, KIC or EPIC (TIC 25155310) has the light curves of that number, "
    "wherever they are; one named by KIC or EPIC gets only Kepler and K2. Any other target has those of all sources "
    "within radius_arcsec, ranked; its own proper motion takes it to 2000.0, the epoch of those catalogues. For each "
    "target and each sector, quarter or campaign one file is taken: of the first of authors that has one; of Kepler "
    "and K2 only in kepler_cadence, long (30 min) or short (1 min); of SPOC rather in tess_cadence_s, 120 or 20. "
    "Authors that are left out are never taken. Pulled with other parameters, the new choice takes the place of the "
    "old one.",
    quality="good: there is a flux, and quality, the file's flag word, has no bit of lightkurve's default mask. All "
    "cadences that have a time are kept. A broken file is left out, and the ledger's reason names it.",
    corrections="mjd is BTJD + 56999.5, BKJD + 54832.5: TDB at the barycentre, middle of the cadence, and equal to "
    "bmjd_tdb. The Fornax collector took BKJD for BTJD: Kepler and K2 were 2167 d late. Each kind of flux has a band "
    "of its own, named for mission and pipeline, so that no band mixes pipelines, units, or two kinds of file of one "
    "sector; the collector had them under one name.",
    notes="Fluxes are electron.s**-1, or without a unit where the pipeline divides by the median (QLP, K2SFF). A row "
    "of exposures is a file.",
    fetch=fetch,
    collector=Collector("tess_kepler", {"radius": Key("radius_arcsec")}),
    parameters={
        "radius_arcsec": 1.0,
        "authors": list(AUTHORS),
        "kepler_cadence": KEPLER_CADENCES[0],
        "tess_cadence_s": TESS_CADENCES_S[0],
    },
)
