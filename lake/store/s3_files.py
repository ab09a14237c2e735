"""s3fs's file system, which raises an OSError where S3 cannot be reached, as a disk that is away does."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ConnectionError as NoConnection
from botocore.exceptions import HTTPClientError
from fsspec import get_filesystem_class, register_implementation
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

from lake.store.s3 import S3Unreachable


class S3Files(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Access to S3.

    s3fs makes OSErrors of what S3 refuses, and leaves botocore's errors where S3 does not answer. What cleans up after
    a failure, or goes on without a file, looks for OSErrors only.
    """

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(method, *args, **kwargs)
        except (NoConnection, HTTPClientError) as error:
            raise S3Unreachable(str(error)) from error

    call_s3 = sync_wrapper(_call_s3)


def use_s3_files() -> None:
    """Let fsspec, and with it UPath, use this file system, unless another one than s3fs's own was registered."""
    if get_filesystem_class("s3") is S3FileSystem:
        register_implementation("s3", S3Files, clobber=True)
