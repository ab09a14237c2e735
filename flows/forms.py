"""What a person may choose of a pull and of a refresh: the forms of the UI and the commands are made from these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator, Field, field_validator

from lake.commit.targets import MATCH_RADIUS_ARCSEC
from tasks.options import FormField, Options, from_json
from tasks.pull.recording import check_run_id
from tasks.sources.protocol import Request

Switch = Parameter(negative=())


def sample_list(value: Any) -> Any:
    """Return samples as a list of one name with its parameters each; they may be given by name, or as one mapping."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return [{str(name): parameters or {}} for name, parameters in value.items()]
    if not isinstance(value, list | tuple):
        return value
    entries = [{one: None} if isinstance(one, str) else one for one in value]
    if not all(isinstance(one, Mapping) for one in entries):
        return value
    return [{str(name): parameters or {}} for one in entries for name, parameters in one.items()]


def archives() -> list[str]:
    """Return the names of all archives."""
    from tasks.sources.registry import known

    return sorted(known())


def archives_and_services() -> list[str]:
    """Return the names of all archives, and of services that stand for several."""
    from tasks.sources.registry import known

    services = {archive.service for archive in known().values() if archive.service}
    return sorted({*known(), *services})


LakeField = Annotated[str | None, FormField("The lake: a folder or s3://BUCKET/PREFIX", empty="LIGHTLAKE_URL")]
RunnerField = Annotated[
    Literal["threads", "processes", "dask"] | None, FormField("What runs the tasks", empty="LIGHTLAKE_RUNNER")
]
Sample = Annotated[str | None, FormField("Only targets of this sample", empty="all targets")]
Again = Annotated[bool, FormField("Ask for what was answered before, too")]
RetryFailed = Annotated[bool, FormField("Exactly the targets that failed or were rejected before", command=Switch)]
BackOff = Annotated[
    bool,
    FormField("Skip what failed recently: for an hour, and twice as long after each further failure", command=False),
]


class PullOptions(Options):
    """Options of a pull of one archive."""

    archive: Annotated[
        str,
        FormField(
            "The archive to ask",
            choices=archives,
            command=Parameter(help="As `lightlake archives` names it; or a service, for all its archives."),
        ),
    ]
    sample: Sample = None
    parameters: Annotated[
        dict[str, Any] | None,
        BeforeValidator(from_json),
        FormField('Other than the archive\'s defaults, as JSON, such as {"radius_arcsec": 2}', is_json=True),
    ] = None
    again: Again = False
    release: Annotated[
        str | None,
        FormField(
            "Another data release than the one that the lake shows, such as DR24, or newest: see "
            "`lightlake archives --releases`. It is kept beside that one, and takes over when it has an answer for all "
            "of that one's targets",
            empty="the one that the lake shows",
        ),
    ] = None
    back_off: BackOff = False
    retry_failed: RetryFailed = False

    @property
    def request(self) -> Request:
        """Return what it asks of its archive."""
        return Request(self.archive, self.parameters, self.sample, self.select, self.release, self.back_off)


class RefreshOptions(Options):
    """Options of a refresh of many archives."""

    archives: Annotated[
        list[Annotated[str, FormField(choices=archives_and_services)]] | None,
        FormField("Archives, or services for all of theirs", empty="all archives"),
    ] = None
    sample: Sample = None
    parameters: Annotated[
        dict[str, dict[str, Any]] | None,
        BeforeValidator(from_json),
        FormField(
            'By archive, other than the defaults, as JSON, such as {"ARCHIVE": {"radius_arcsec": 2}}', is_json=True
        ),
    ] = None
    again: Again = False
    back_off: BackOff = False
    newest: Annotated[
        bool,
        FormField(
            "Then pull the newest release, too, where releases lie side by side: all targets are "
            "asked again, and it takes over when it has them all",
            command=Switch,
        ),
    ] = False
    retry_failed: RetryFailed = False


class RunOptions(Options):
    """What a run does: which samples it gets, and which archives it asks for them."""

    run_id: Annotated[
        str | None,
        FormField("Name of the run: started again, it goes on where it was", empty="a new one", command=False),
    ] = None
    samples: Annotated[
        list[dict[str, dict[str, Any]]] | None,
        BeforeValidator(sample_list),
        FormField(
            'Samples with their parameters, such as [{"green22": {}}, {"sdss": {"num": 10}}]: see `lightlake samples`',
            empty="all targets of the lake",
            command=False,
        ),
    ] = None
    keep_samples: Annotated[bool, FormField("Do not ask again for a sample that the lake has", command=False)] = False
    match_radius_arcsec: Annotated[
        float,
        Field(ge=0),
        FormField("Targets of samples within this of one another are one target, arcsec; 0: none", command=False),
    ] = MATCH_RADIUS_ARCSEC
    archives: Annotated[
        list[str] | None,
        FormField("Archives, services, or the groups core and all", empty="all archives", command=False),
    ] = None
    parameters: Annotated[
        dict[str, dict[str, Any]] | None,
        FormField(
            'By archive, other than the defaults, as JSON, such as {"ARCHIVE": {"radius_arcsec": 2}}', command=False
        ),
    ] = None
    release: Annotated[
        dict[str, str] | None,
        FormField(
            'By archive, a data release other than the one that the lake shows, as JSON, such as {"ARCHIVE": "newest"}',
            command=False,
        ),
    ] = None
    again: Again = False
    back_off: BackOff = False
    retry_failed: RetryFailed = False

    @field_validator("samples", "parameters", "release", mode="after")
    @classmethod
    def _none_of_nothing(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = {name: one for name, one in value.items() if one}
        return value or None

    @field_validator("run_id")
    @classmethod
    def _named(cls, run_id: str | None) -> str | None:
        return None if run_id is None else check_run_id(run_id)
