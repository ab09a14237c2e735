"""Check that a lake's catalogue, folders, cache and disks exist, are writable and have free space."""

from __future__ import annotations

import email.utils
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lake.commit.ledger import dated_ahead
from lake.errors import CatalogError, ConfigurationError, NoLake, ReadOnly
from lake.model.schema import SCHEMA_VERSION
from lake.settings import Settings
from lake.store.access import check_catalogue
from lake.store.catalog import Catalog
from lake.store.location import CatalogLocation
from lake.store.s3 import AWS, s3_endpoint, said
from lake.store.storage import PARTIAL, Storage, is_local, path_of, publish, remove, write_text
from lake.upkeep.doctor import Check, first_line

if TYPE_CHECKING:
    from upath import UPath

# With less free space, bytes, nothing works; with less than the second, a large pull may not finish.
_FULL, _LITTLE = 100 << 20, 2 << 30

# Types of file systems, as Linux names them, that several machines may share.
_SHARED = re.compile(
    r"nfs\d?|cifs|smb\w*|lustre|gpfs|beegfs\w*|ceph|afs|9p|glusterfs|panfs|orangefs|pvfs2|wekafs"
    r"|fuse\.(sshfs|s3fs|rclone|gcsfuse|juicefs|glusterfs|ceph.*|cvmfs\w*)"
)
_MOUNTS = Path("/proc/self/mountinfo")

# A clock may be wrong by so much; S3 refuses requests signed by a clock that is wrong by 900 s.
_LARGEST_SKEW_S = 60.0


def catalogue(storage: Storage, settings: Settings, patience_s: float) -> list[Check]:
    """Open the catalogue. Check its schema version and, if it is in SQLite, that it is on a local disk.

    Parameters
    ----------
    patience_s
        Longest wait for a database that is locked or silent.
    """
    quick: dict[str, object] = {"lock_timeout_s": min(settings.lock_timeout_s, patience_s)}
    given = settings.catalog or ""
    if given.startswith("postgres:") and "://" not in given and "connect_timeout" not in given:
        quick["catalog"] = f"{given} connect_timeout={max(2, round(patience_s))}"
    location = CatalogLocation.parse(settings.catalog, storage)
    catalog = Catalog(storage, settings.model_copy(update=quick), read_only=True)
    try:
        catalog.open()
        found = [Check("catalogue", "ok", f"{location}, schema version {SCHEMA_VERSION}"), *_dates(catalog)]
    except NoLake as error:
        found = [Check("catalogue", "warn", error.message, error.hint)]
    except CatalogError as error:
        found = [Check("catalogue", "fail", error.message, error.hint)]
    finally:
        catalog.close()
    if location.kind == "sqlite":
        folder = Path(location.target).parent
        try:
            check_catalogue(Path(location.target))
        except ReadOnly as error:  # for reading that is no problem
            found.append(Check("catalogue", "warn", error.message, error.hint))
        if storage.root != folder:
            found.append(check_writable("folder of the catalogue", folder, "LIGHTLAKE_CATALOG"))
        found += _disk_of_catalogue(folder)
    return found


def _dates(catalog: Catalog) -> list[Check]:
    """Find answers dated in the future: the clock of this machine is wrong, or that of another one was."""
    with closing(catalog.cursor()) as cursor:
        ahead = dated_ahead(cursor, "coverage")
    if not ahead:
        return []
    latest = max(time for _, time in ahead.values())
    counts = ", ".join(f"{count} of {who}" for who, (count, _) in ahead.items())
    return [
        Check(
            "dates of answers",
            "warn",
            f"in the future, up to {latest:%Y-%m-%d %H:%M} UTC: {counts}",
            "compare the clocks of all machines that pull; these targets are pulled again from live archives",
        )
    ]


def _disk_of_catalogue(folder: Path) -> list[Check]:
    kind = file_system(_existing(folder), mounts) if (mounts := _mounts()) else None
    if kind is None:
        return []
    if not _SHARED.fullmatch(kind):
        return [Check("disk of the catalogue", "ok", f"{folder} is on a local file system ({kind})")]
    return [
        Check(
            "disk of the catalogue",
            "warn",
            f"{folder} is on a network file system ({kind}), and SQLite's write-ahead log needs a local disk",
            "set LIGHTLAKE_CATALOG to sqlite:PATH on a local disk, or to postgres:... for several machines",
        )
    ]


def _mounts() -> str:
    try:
        return _MOUNTS.read_text()
    except OSError:  # not Linux
        return ""


def file_system(path: Path, mounts: str) -> str | None:
    """Return the type of a path's file system, from the text of /proc/self/mountinfo; None if it is not there."""
    deepest, found = -1, None
    resolved = path.resolve()
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, types = before.split(), after.split()
        if len(fields) < 5 or not types:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if resolved.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, found = len(point.parts), types[0]
    return found


def storage_rights(storage: Storage, options: Mapping[str, object], patience_s: float) -> list[Check]:
    """Write a file in staging, publish it in the tree, read and remove it, as a commit does.

    Parameters
    ----------
    options
        Options of fsspec's S3 file system.
    patience_s
        Longest wait for S3, of a connection and of an answer.
    """
    if is_local(storage.root):
        return [
            check_writable("lake", storage.root, "--lake or LIGHTLAKE_URL", (storage.staging, storage.data / "main"))
        ]
    from botocore.exceptions import BotoCoreError

    config = {
        "connect_timeout": patience_s,
        "read_timeout": patience_s,
        "retries": {"max_attempts": 0},
        **dict(options.get("config_kwargs") or {}),  # type: ignore[call-overload]
    }
    place = Storage(path_of(str(storage.root), {**options, "config_kwargs": config}))
    place.root.fs.retries = 1
    try:
        _try(place.staging, place.data / "main")
    except (OSError, BotoCoreError) as error:
        return [
            Check(
                "lake",
                "fail",
                f"cannot write to {place.root} at {s3_endpoint(place) or AWS}: {said(error)}",
                "check the bucket, the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...), AWS_ENDPOINT_URL and "
                "LIGHTLAKE_STORAGE_OPTIONS",
            )
        ]
    return [Check("lake", "ok", f"{place.root}: objects can be written, copied, read and removed")]


def check_writable(name: str, folder: Path, setting: str, inner: tuple[UPath, UPath] | None = None) -> Check:
    """Write a file in a folder, link it, read and remove it. If the folder does not exist, use its nearest parent.

    Parameters
    ----------
    name
        Name of the check.
    folder
        The folder.
    setting
        The setting that chooses another one.
    inner
        Folders in it: one to write the file in, one to link it in.
    """
    place = _existing(folder)
    written, shown = (path if is_local(path) and path.is_dir() else place for path in inner or (place, place))
    try:
        linked = _try(written, shown)
    except OSError as error:
        return Check(
            name,
            "fail",
            f"cannot write to {place}: {error.strerror or error}",
            f"ask its owner (reading needs no permission to write), or choose another folder: {setting}",
        )
    message = f"{folder}: files can be written, {'linked' if linked else 'copied (it has no hard links)'} and removed"
    return Check(name, "ok", message if place == folder else f"{message}; it will be created in {place}")


def _try(staging: UPath | Path, tree: UPath | Path) -> bool:
    """Do what a commit does with a file; return whether it had two names on the disk."""
    name = f"doctor-{uuid.uuid4().hex}"
    staged, shown = staging / f"{name}.staged", tree / f"{name}.shown"
    try:
        write_text(staged, name)
    except OSError:
        if is_local(staged):
            with suppress(OSError):
                remove(staged.with_suffix(PARTIAL))
        raise
    try:
        publish(staged, shown)
        linked = not is_local(shown) or shown.stat().st_nlink > 1
        if shown.read_text() != name:
            raise OSError(f"{shown} has other content than was written")
    finally:
        remove(shown)
        remove(staged)
    return linked


def _existing(path: Path) -> Path:
    """Return this folder, or its nearest parent that exists."""
    path = path.expanduser().absolute()
    while not path.is_dir() and path != path.parent:
        if path.exists():
            break
        path = path.parent
    return path


def room(name: str, folder: Path) -> Check:
    """Check the free space on the disk of a folder."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < _FULL:
        return Check(name, "fail", found, "free some space, or choose another disk")
    if free < _LITTLE:
        return Check(name, "warn", found, "large pulls and compaction may need more: free some space")
    return Check(name, "ok", found)


def check_free_space(storage: Storage, settings: Settings) -> list[Check]:
    """Check the free space for the lake, the cache and temporary files."""
    places = {"cache": settings.cache_dir, "temporary files": Path(tempfile.gettempdir())}
    if is_local(storage.root):
        places = {"lake": Path(storage.root), **places}
    return [room(f"room for {name}", folder) for name, folder in places.items()]


class Answered(Protocol):
    """An answer over HTTP, from any library."""

    @property
    def headers(self) -> Any:
        """Its headers."""


def skew_s(answer: Answered, before: float, after: float) -> float | None:
    """Return by how many seconds this machine's clock is ahead of a server's; None if the answer has no Date.

    Parameters
    ----------
    before, after
        This machine's clock, Unix time, when the request was sent and when the answer came.
    """
    try:
        date = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    # Date is truncated to a second.
    return (before + after) / 2 - (date.timestamp() + 0.5)


def clock(name: str, skews: Mapping[str, float]) -> list[Check]:
    """Compare the clock with those of servers. The nearest one counts, since others may be wrong themselves.

    Parameters
    ----------
    skews
        By how many seconds it is ahead of each.
    """
    if not skews:
        found, hint = "no server answered with a date", "compare it with another clock: S3 allows 15 minutes"
        return [Check(name, "warn", found, hint)]
    host, skew = min(skews.items(), key=lambda one: abs(one[1]))
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {host}"
    if abs(skew) <= _LARGEST_SKEW_S:
        return [Check(name, "ok", found)]
    return [Check(name, "warn", found, "set it, or use NTP (timedatectl): S3 refuses requests from 15 minutes on")]


def clock_of_s3(storage: Storage, patience_s: float) -> list[Check]:
    """Compare the clock with that of the lake's S3 service, which checks signatures by it."""
    import httpx

    endpoint = s3_endpoint(storage) or AWS
    endpoint = endpoint if "://" in endpoint else f"https://{endpoint}"
    before = time.time()
    try:
        answer = httpx.get(endpoint, timeout=patience_s)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"{endpoint} does not answer: {first_line(error)}", hint="check AWS_ENDPOINT_URL"
        ) from error
    skew = skew_s(answer, before, time.time())
    return clock("clock of S3", {} if skew is None else {endpoint: skew})


def cache(settings: Settings) -> Check:
    """Check that downloads can be kept."""
    return check_writable("cache", settings.cache_dir.expanduser(), "LIGHTLAKE_CACHE_DIR")
