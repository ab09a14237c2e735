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

# Beside digits, dates and times, which do not begin with a letter, what DuckDB makes another type or NULL of when it
# reads it as the name of a Hive folder.
_TYPED = frozenset({"epoch", "inf", "infinity", "null"})
# Batches lost in a row.
GIVE_UP_AFTER = 8

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")


def wrong_name(name: str) -> str | None:
    """Return why no archive can be called so; None if one can.

    A name becomes a folder of the lake, archive=NAME, and every reader of the plain tree must get it back as it is.
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
    """A band of an archive: the row of table bands, less the archive."""

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
        What is asked.
    parameters
        How it is asked.
    targets
        Columns of table targets, for the targets asked for.
    """

    archive: str
    release: str
    parameters: Mapping[str, Any]
    targets: pa.Table

    @property
    def input_checksum(self) -> str:
        """Return a hash of the targets: their ids and positions, in order."""
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
        """Return two granules that ask for the same together."""
        middle = self.targets.num_rows // 2
        return [replace(self, targets=part) for part in (self.targets.slice(0, middle), self.targets.slice(middle))]


@dataclass(frozen=True)
class FetchResult:
    """What an archive gave for a granule: Arrow tables in the lake's schema.

    Column granule, and the columns archive and release, may be left out: the pull fills them in. A remark, on
    what the archive could not give, goes into the ledger. Targets in unanswered have sources that were rejected, and
    no others.
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
    """Where light curves come from, an archive or a survey's files: what the catalogue and the user need to know.

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
        Default match radius; None where each source has its own, or targets play no part.
    cadence
        frozen: asked once, ever; live: again after max_age_days.
    probe
        What an endpoint on the web answers at once if it works: a path below it; None: nothing is known.
    extra_endpoints
        Other addresses that are asked, by the names of their settings.
    views, tables, former_names
        What it brings into a lake: see `Declaration`.
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
    notes: str | None = None
    probe: str | None = None
    extra_endpoints: Mapping[str, str] = field(default_factory=dict)
    views: Views = field(default_factory=Views)
    tables: tuple[Table, ...] = ()
    former_names: Mapping[str, Values] = field(default_factory=dict)

    @property
    def declaration(self) -> Declaration:
        """Return what it brings into a lake."""
        return Declaration(
            archive=self.name,
            bands=tuple(band.band for band in self.bands),
            views=self.views,
            tables=self.tables,
            former_names=self.former_names,
        )

    def __post_init__(self) -> None:
        if told := wrong_name(self.name):
            raise ConfigurationError(told, hint="choose another name")

    def row(self) -> dict[str, Any]:
        """Return the row of table archives."""
        names = [name for name in TABLES["archives"].names if name != "archive"]
        return {"archive": self.name, **{name: getattr(self, name) for name in names}, "endpoint": self.public_url}

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


@dataclass(frozen=True, kw_only=True)
class Archive(Origin):
    """An archive that is asked for targets.

    Parameters
    ----------
    service
        Name that several archives share who live at the same address: it stands for all of them in commands,
        and their endpoint is LIGHTLAKE_ENDPOINTS__<SERVICE>.
    batch_size
        Targets in a granule.
    parameters
        Parameters of a request, with their defaults.
    plan, fetch
        Cut targets into granules; get one granule.
    span
        When it observed, if targets are followed along their proper motion over that time. None where positions are of
        one epoch, or error circles so large that no motion matters.
    give_up_after
        After so many batches lost in a row it counts as unreachable: the rest is noted as failed, unasked, rather than
        waited for.
    patient
        It asks again for itself, request by request, whatever may pass; then a batch is not fetched again for that.
    """

    batch_size: int
    fetch: Fetch
    plan: Plan | None = None
    max_age_days: float | None = None
    service: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    span: Span | None = None
    give_up_after: int = GIVE_UP_AFTER
    patient: bool = False

    def followed(self, parameters: Mapping[str, Any]) -> Followed | None:
        """Return what tells answers that followed proper motion from those before it; None if it never does."""
        if self.span is None:
            return None
        marked = canonical({**parameters, "proper_motion": True})
        return Followed(marked, self.span, parameters["radius_arcsec"])

    def endpoint_url(self, settings: Settings) -> str:
        """Return where to ask: the endpoint of the settings, or the public one."""
        return self._at(self.url_template(settings))

    def url_template(self, settings: Settings) -> str:
        """Return where to ask, with {release} in it if other releases may lie beside this one."""
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
            If one is unknown, or of another type than its default.
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
