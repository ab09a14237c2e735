"""What a person may choose of a pull and of a refresh: the forms of the UI and the commands are made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import BeforeValidator

from tasks.options import FormField, Options, from_json
from tasks.sources.protocol import Request

Switch = Parameter(negative=())


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
