"""What an archive is to Lightlake: one object with facts, and two plain functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from lake.commit.ledger import canonical
from lake.errors import ConfigurationError
from lake.model.declared import Declaration, Values, Views, current_name
from lake.model.schema import TABLES
from lake.model.table import Table
from lake.science.motion import Followed, Span
from lake.settings import Settings
from tasks.sources.collector import Collector
from tasks.sources.papers import papers_of

# Names of Hive folders that DuckDB reads as another type or as NULL, beside digits, dates and times, which begin with
# no letter.
_TYPED = frozenset({"epoch", "inf", "infinity", "null"})
# Failed batches in a row.
GIVE_UP_AFTER = 8
# Batches of an archive that are committed together, at most: meanwhile other sources of the run wait.
TOGETHER = 16

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


def wrong_name(name: str) -> str | None:
    """Return why an archive cannot have this name; None if it can.

    A name becomes a folder of the lake, archive=NAME, which every reader of the plain tree must read unchanged.
    """
    if not _NAME.fullmatch(name):
        return (
            f"{name!r} cannot be an archive's name: it takes lower-case letters, digits and underscores, "
            "a letter first, 48 at most"
        )
    if name in _TYPED:
        return f"{name!r} cannot be an archive's name: readers of the lake's folders take it for NULL or a date"
    return None


@dataclass(frozen=True)
class Band:
    """A band of an archive: a row of table bands, without the archive."""

    band: str
    description: str
    unit: str | None
    mag_system: str | None = None
    zero_point_jy: float | None = None
    zero_point_source: str | None = None
    ab_minus_mag: float | None = None
    ab_source: str | None = None
    wavelength_nm: float | None = None
    svo_id: str | None = None
    fornax_band: str | None = None


@dataclass(frozen=True)
class Granule:
    """The smallest piece that is pulled, committed, retried and replaced as one.

    Parameters
    ----------
    archive, release
        The archive, at a release.
    parameters
        Of the question.
    targets
        Rows of table targets.
    """

    archive: str
    release: str
    parameters: Mapping[str, Any]
    targets: pa.Table

    @property
    def input_checksum(self) -> str:
        """Return a hash of the targets' ids and positions, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("target_id", "ra", "dec", "pm_ra", "pm_dec", "ref_epoch"):
            column = self.targets[name].combine_chunks()
            digest.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
            digest.update(column.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """Return the granule's id: the same for the same archive, release, parameters and targets."""
        key = "\n".join((self.archive, self.release, canonical(self.parameters), self.input_checksum))
        return f"{self.archive}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"

    def halves(self) -> list[Granule]:
        """Return two granules with half of the targets each."""
        middle = self.targets.num_rows // 2
        return [replace(self, targets=part) for part in (self.targets.slice(0, middle), self.targets.slice(middle))]


@dataclass(frozen=True)
class FetchResult:
    """Answer of an archive for a granule: Arrow tables in the lake's schema.

    The columns granule, archive and release may be left out: the pull fills them in. The remark, on what is missing,
    goes into the ledger. Targets in `unanswered` have only sources that were rejected.
    """

    sources: pa.Table
    matches: pa.Table
    lightcurves: pa.Table
    exposures: pa.Table = field(default_factory=TABLES["exposures"].empty)
    endpoint: str | None = None
    remark: str | None = None
    unanswered: frozenset[int] = frozenset()


Plan = Callable[["Archive", pa.Table, Settings, Mapping[str, Any]], list[Granule]]
Fetch = Callable[[Granule, Settings], FetchResult]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Description of an archive, or of a survey's files, for the catalogue and the user.

    Parameters
    ----------
    name
        Short name, since it becomes a folder: see `wrong_name`.
    endpoint
        Public address; LIGHTLAKE_ENDPOINTS__<NAME> points elsewhere. Where releases lie side by side, {release}
        stands for the release's name in small letters.
    time_scale, time_frame
        Of column mjd.
    radius_arcsec
        Default match radius; None where each source has its own, or there are no targets.
    cadence
        frozen: asked once, ever; live: again after max_age_days.
    probe
        Path below the endpoint that answers at once if the service works; None: unknown.
    service
        Name of its service, if that is another: its endpoint is LIGHTLAKE_ENDPOINTS__<SERVICE>. Several archives at one
        address share it, and in commands it means all of them.
    extra_endpoints
        Other addresses in use, by the names of their settings; empty: none, unless the setting gives one.
    command, views, tables, former_names
        What it brings into a lake: see `Declaration`.
    access
        How it is reached, and what else its endpoint may be.
    matching
        Which of its sources, events or files belong to a target.
    quality
        What column quality is, and which rows are good.
    corrections
        What of the archive's own numbers is corrected or converted, and why.
    notes
        What else a user must know.
    """

    name: str
    title: str
    release: str
    endpoint: str
    time_scale: str
    time_frame: str
    bands: tuple[Band, ...]
    radius_arcsec: float | None = None
    cadence: Literal["frozen", "live"]
    licence: str
    acknowledgement: str
    bibcode: str | None = None
    access: str = ""
    matching: str = ""
    quality: str = ""
    corrections: str = ""
    notes: str | None = None
    probe: str | None = None
    service: str | None = None
    extra_endpoints: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None
    views: Views = field(default_factory=Views)
    tables: tuple[Table, ...] = ()
    former_names: Mapping[str, Values] = field(default_factory=dict)

    @property
    def declaration(self) -> Declaration:
        """Return what it brings into a lake."""
        return Declaration(
            archive=self.name,
            bands=tuple(band.band for band in self.bands),
            command=self.command,
            views=self.views,
            tables=self.tables,
            former_names=self.former_names,
            papers=papers_of(self.bibcode),
        )

    def __post_init__(self) -> None:
        if reason := wrong_name(self.name):
            raise ConfigurationError(reason, hint="choose another name")

    def row(self) -> dict[str, Any]:
        """Return the row of table archives."""
        names = [name for name in TABLES["archives"].names if name != "archive"]
        facts = {"archive": self.name, **{name: getattr(self, name) for name in names}, "endpoint": self.public_url}
        return {**facts, "notes": " ".join(self.words.values()) or None}

    @property
    def words(self) -> dict[str, str]:
        """Return what is said of it, by what it is about."""
        about = ("access", "matching", "quality", "corrections", "notes")
        return {name: text for name in about if (text := getattr(self, name))}

    @property
    def public_url(self) -> str:
        """Return the public address of this release."""
        return self._at(self.endpoint)

    def band_rows(self) -> list[dict[str, Any]]:
        """Return the rows of table bands."""
        return [{"archive": self.name, **vars(band)} for band in self.bands]

    @property
    def band_units(self) -> dict[str, str | None]:
        """Return the unit of flux in each band."""
        return {band.band: band.unit for band in self.bands}

    def _at(self, pattern: str) -> str:
        return pattern.replace("{release}", self.release.lower())


@dataclass(frozen=True)
class Limits:
    """What a source allows, and how much work one task carries.

    Parameters
    ----------
    service
        The service whose connection slots its tasks use; None: files that all workers may read.
    exclusive
        Only one run of a lake pulls it at a time. Otherwise runs share the work, and claim each granule.
    give_up_after
        After so many failed batches in a row it counts as unreachable, and the rest is marked failed without asking.
    patient
        It retries each request by itself; then its batches are not fetched again after a passing error.
    granules, bytes
        A task carries so many granules, and bytes, at most.
    together
        So many batches that wait for their commit are committed together, at most.
    """

    service: str | None = None
    exclusive: bool = True
    give_up_after: int = GIVE_UP_AFTER
    patient: bool = False
    granules: int = 4
    bytes: int | None = None
    together: int = 1


def granules_per_task(n: int, most: int, workers: int) -> int:
    """Return how many of the last n granules a task carries.

    All workers get some, if there are enough; a task carries a quarter of the most at least, since each one costs a
    commit.

    Examples
    --------
    >>> [granules_per_task(n, most=250, workers=4) for n in (2000, 400, 8)]
    [250, 100, 62]
    """
    return max(1, most // 4, min(most, -(-n // workers)))


@dataclass(frozen=True, kw_only=True)
class Archive(Origin):
    """An archive that is asked for targets.

    Parameters
    ----------
    batch_size
        Targets in a granule.
    parameters
        Parameters of a request, with their defaults.
    plan, fetch
        Cut targets into granules; get one granule.
    span
        When it observed, if proper motion is followed over that time. None where positions have one epoch, or error
        circles are larger than any motion.
    give_up_after, patient
        See `Limits`.
    collector
        What it is called in run files of the Fornax collector.
    """

    batch_size: int
    fetch: Fetch
    plan: Plan | None = None
    max_age_days: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    span: Span | None = None
    give_up_after: int = GIVE_UP_AFTER
    patient: bool = False
    collector: Collector | None = None

    @property
    def limits(self) -> Limits:
        """Return its limits."""
        service = self.service or self.name
        return Limits(service, give_up_after=self.give_up_after, patient=self.patient, together=TOGETHER)

    def followed(self, parameters: Mapping[str, Any]) -> Followed | None:
        """Return the mark of answers that followed proper motion; None if the archive never does."""
        if self.span is None:
            return None
        marked = canonical({**parameters, "proper_motion": True})
        return Followed(marked, self.span, parameters["radius_arcsec"])

    def endpoint_url(self, settings: Settings) -> str:
        """Return the endpoint of the settings, or the public one."""
        return self._at(self.url_template(settings))

    def url_template(self, settings: Settings) -> str:
        """Return the endpoint, with {release} in it if other releases may lie beside this one."""
        for name in (self.service or self.name, *self.former_names):
            if name in settings.endpoints:
                current_name(name, [self.declaration])  # for its warning
                return settings.endpoints[name]
        return self.endpoint

    def with_defaults(self, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return parameters with the defaults filled in.

        Raises
        ------
        ConfigurationError
            If one is unknown, or has another type than its default.
        """
        given = dict(parameters or {})
        unknown = sorted(set(given) - set(self.parameters))
        if unknown:
            raise ConfigurationError(
                f"{self.name} has no parameter {', '.join(unknown)}",
                hint=f"it has: {', '.join(sorted(self.parameters)) or 'none'}",
            )
        for name, value in given.items():
            default = self.parameters[name]
            number = isinstance(default, int | float) and not isinstance(default, bool)
            fits = isinstance(value, int | float) if number else isinstance(value, type(default))
            if not fits or isinstance(value, bool) != isinstance(default, bool):
                raise ConfigurationError(
                    f"parameter {name} of {self.name} cannot be {value!r}", hint=f"the default is {default!r}"
                )
            if number:
                given[name] = type(default)(value)
        return {**self.parameters, **given}

    def granules(self, targets: pa.Table, settings: Settings, parameters: Mapping[str, Any]) -> list[Granule]:
        """Cut targets, sorted by hpx29, into granules: the archive's own way, or by batch size."""
        if self.plan is not None:
            return self.plan(self, targets, settings, parameters)
        return list(batches(self, targets, parameters))

    def at_release(self, release: str) -> Archive:
        """Return the archive at another data release."""
        return replace(self, release=release)


def batches(archive: Archive, targets: pa.Table, parameters: Mapping[str, Any]) -> Iterator[Granule]:
    """Yield granules of neighbouring targets, batch_size at most in each."""
    for start in range(0, targets.num_rows, archive.batch_size):
        part = targets.slice(start, archive.batch_size)
        yield Granule(archive.name, archive.release, dict(parameters), part)
