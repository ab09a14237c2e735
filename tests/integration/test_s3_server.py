"""The S3 server of the tests behaves as S3 does, and the proxy in front of it spoils what it is told to spoil."""

from __future__ import annotations

import errno
import os
import re
import socket
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from helpers.s3 import S3, FaultyProxy, running
from pyarrow import fs

from deployments.sandbox import ztf

pytestmark = pytest.mark.server
ONCE = fs.AwsStandardS3RetryStrategy(max_attempts=1)
THRICE = fs.AwsStandardS3RetryStrategy(max_attempts=3)
NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with running() as server:
        yield server


@pytest.fixture
def bucket(server: S3) -> str:
    return server.bucket(f"bucket-{next(NUMBERS)}")


@pytest.fixture
def proxy(server: S3) -> Iterator[FaultyProxy]:
    with FaultyProxy(server.endpoint) as proxy:
        yield proxy


def put(disk: fs.FileSystem, path: str, content: bytes) -> None:
    with disk.open_output_stream(path) as out:
        out.write(content)


def get(disk: fs.FileSystem, path: str) -> bytes:
    with disk.open_input_stream(path) as source:
        return source.read()


def client(server: S3, endpoint: str, **settings: Any) -> Any:
    session = pytest.importorskip("botocore.session").Session()
    config = pytest.importorskip("botocore.config").Config(s3={"addressing_style": "path"}, **settings)
    return session.create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        config=config,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
    )


def test_pyarrow_puts_gets_lists_and_deletes(server: S3, bucket: str) -> None:
    disk = server.filesystem
    put(disk, f"{bucket}/a/one", b"1")
    put(disk, f"{bucket}/a/two", b"22")
    assert get(disk, f"{bucket}/a/two") == b"22"
    listed = disk.get_file_info(fs.FileSelector(bucket, recursive=True))
    sizes = {info.path: info.size for info in listed if info.type is fs.FileType.File}
    assert sizes == {f"{bucket}/a/one": 1, f"{bucket}/a/two": 2}
    disk.delete_file(f"{bucket}/a/one")
    assert disk.get_file_info(f"{bucket}/a/one").type is fs.FileType.NotFound


def test_large_objects_go_in_parts(server: S3, proxy: FaultyProxy, bucket: str) -> None:
    content = os.urandom(1 << 20) * 24
    put(server.filesystem_at(proxy.endpoint), f"{bucket}/large", content)
    parts = [seen for seen in proxy.requests if "partNumber=" in seen.path]
    assert len(parts) >= 2
    assert {seen.status for seen in parts} == {200}
    assert get(server.filesystem, f"{bucket}/large") == content


def test_parquet_datasets_are_read_with_ranges(server: S3, proxy: FaultyProxy, bucket: str) -> None:
    table = pa.table({"part": [1, 1, 2], "value": [1.0, 2.0, 3.0]})
    disk = server.filesystem_at(proxy.endpoint)
    pq.write_to_dataset(table, f"{bucket}/set", partition_cols=["part"], filesystem=disk)
    found = ds.dataset(f"{bucket}/set", filesystem=disk, partitioning="hive")
    assert found.to_table(filter=ds.field("part") == 2)["value"].to_pylist() == [3.0]
    assert any(seen.status == 206 for seen in proxy.requests)


def test_a_catalogue_of_the_sandbox_goes_to_a_bucket(
    server: S3, proxy: FaultyProxy, bucket: str, tmp_path: Path
) -> None:
    ztf.write_collection(tmp_path, [(10.0, 20.0)], seed=1, n_field=30)
    fs.copy_files(
        str(tmp_path), f"{bucket}/ztf", source_filesystem=fs.LocalFileSystem(), destination_filesystem=server.filesystem
    )
    disk = server.filesystem_at(proxy.endpoint)
    dataset = ds.parquet_dataset(f"{bucket}/ztf/{ztf.CATALOG}/dataset/_metadata", filesystem=disk)
    rows = dataset.to_table(columns=["filterid"], filter=(ds.field("objdec") > 19.99) & (ds.field("objdec") < 20.01))
    assert {1, 2} <= set(rows["filterid"].to_pylist())
    # What the metadata rules out is not asked for.
    files = len(list((tmp_path / ztf.CATALOG).rglob("*.parquet")))
    assert len({seen.path for seen in proxy.requests if ".parquet" in seen.path}) < files / 2


@pytest.mark.parametrize("way", ["straight", "proxy"])
def test_an_object_is_made_only_once(server: S3, proxy: FaultyProxy, bucket: str, way: str) -> None:
    s3 = client(server, server.endpoint if way == "straight" else proxy.endpoint)
    s3.put_object(Bucket=bucket, Key="marker", Body=b"first", IfNoneMatch="*")
    with pytest.raises(pytest.importorskip("botocore.exceptions").ClientError) as refused:
        s3.put_object(Bucket=bucket, Key="marker", Body=b"second", IfNoneMatch="*")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    assert get(server.filesystem, f"{bucket}/marker") == b"first"


def test_of_racing_creators_one_wins(server: S3, bucket: str) -> None:
    error = pytest.importorskip("botocore.exceptions").ClientError
    s3, gate, won, lost = client(server, server.endpoint), threading.Barrier(6), list[int](), list[int]()

    def create(number: int) -> None:
        gate.wait()
        try:
            s3.put_object(Bucket=bucket, Key="race", Body=str(number).encode(), IfNoneMatch="*")
        except error as refused:
            lost.append(refused.response["ResponseMetadata"]["HTTPStatusCode"])
        else:
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(lost) <= {409, 412}
    assert [str(number).encode() for number in won] == [get(server.filesystem, f"{bucket}/race")]


def test_s3fs_by_the_environment_alone(
    server: S3, proxy: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name, value in server.environment_at(proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    disk = s3fs.S3FileSystem(skip_instance_cache=True)
    disk.pipe(f"{bucket}/a", b"x" * 100)
    assert disk.cat(f"{bucket}/a", start=10, end=20) == b"x" * 10
    disk.pipe(f"{bucket}/b", os.urandom(12 << 20), chunksize=5 << 20)
    assert {path: disk.size(path) for path in disk.ls(bucket, refresh=True)} == {
        f"{bucket}/a": 100,
        f"{bucket}/b": 12 << 20,
    }
    # SeaweedFS names no <Condition>, so s3fs raises an error of the other kind: see the notes on the server.
    with pytest.raises(OSError, match=r"exists|pre-?conditions") as refused:
        disk.pipe(f"{bucket}/a", b"y", mode="create")
    assert isinstance(refused.value, FileExistsError) or refused.value.errno == errno.EINVAL
    assert disk.cat(f"{bucket}/a") == b"x" * 100
    disk.rm([f"{bucket}/a", f"{bucket}/b"])
    assert disk.ls(bucket, refresh=True) == []


def test_a_wrong_secret_is_refused(server: S3, bucket: str) -> None:
    wrong = fs.S3FileSystem(access_key=server.key, secret_key="wrong", endpoint_override=server.endpoint)
    with pytest.raises(OSError, match=r"(?i)signature|access"):
        put(wrong, f"{bucket}/one", b"1")


@pytest.mark.parametrize("kind", ["slowdown", "status:500", "status:503"])
def test_an_error_comes_as_often_as_told(server: S3, proxy: FaultyProxy, bucket: str, kind: str) -> None:
    content = bytes(10_000)
    put(server.filesystem, f"{bucket}/one", content)
    disk = server.filesystem_at(proxy.endpoint, retry_strategy=ONCE)
    proxy.fault(kind, match=f"^GET /{bucket}/one")
    # Which error it was, PyArrow does not always say.
    with pytest.raises(OSError, match="AWS Error"):
        get(disk, f"{bucket}/one")
    assert get(disk, f"{bucket}/one") == content
    assert [seen.status for seen in proxy.requests if seen.method == "GET"] == [500 if "500" in kind else 503, 206]
    # A client that tries again does not notice.
    proxy.fault(kind, times=2, match=re.escape(f"/{bucket}/one"))
    assert get(server.filesystem_at(proxy.endpoint, retry_strategy=THRICE), f"{bucket}/one") == content


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_a_body_cut_short(server: S3, proxy: FaultyProxy, bucket: str, kind: str) -> None:
    put(server.filesystem, f"{bucket}/one", bytes(100_000))
    s3 = client(server, proxy.endpoint, retries={"total_max_attempts": 1})
    proxy.fault(kind, match="^GET")
    with pytest.raises((pytest.importorskip("botocore.exceptions").BotoCoreError, OSError)):
        s3.get_object(Bucket=bucket, Key="one")["Body"].read()
    assert s3.get_object(Bucket=bucket, Key="one")["Body"].read() == bytes(100_000)


def test_how_a_body_is_cut_short(server: S3, proxy: FaultyProxy, bucket: str) -> None:
    put(server.filesystem, f"{bucket}/one", bytes(100_000))
    s3 = client(server, proxy.endpoint)
    path = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "one"}).removeprefix(proxy.endpoint)
    address = ("127.0.0.1", int(proxy.endpoint.rpartition(":")[2]))
    for kind, error in (("truncate", None), ("reset", ConnectionResetError)):
        proxy.fault(kind)
        answer = b""
        with socket.create_connection(address) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{address[1]}\r\n\r\n".encode())
            try:
                while piece := raw.recv(1 << 16):
                    answer += piece
                assert error is None
            except ConnectionResetError:
                assert error is ConnectionResetError
        if kind == "truncate":
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"content-length: 100000" in head.lower()
            assert body == bytes(50_000)


def test_an_answer_that_is_lost_leaves_the_object(server: S3, proxy: FaultyProxy, bucket: str) -> None:
    s3 = client(server, proxy.endpoint, retries={"total_max_attempts": 1})
    proxy.fault("reset", match="^PUT")
    with pytest.raises(pytest.importorskip("botocore.exceptions").BotoCoreError):
        s3.put_object(Bucket=bucket, Key="one", Body=b"1", IfNoneMatch="*")
    assert get(server.filesystem, f"{bucket}/one") == b"1"


def test_one_that_hangs_hangs_until_the_client_or_the_proxy_closes(server: S3, bucket: str) -> None:
    put(server.filesystem, f"{bucket}/one", b"1")
    proxy = FaultyProxy(server.endpoint)
    proxy.fault("hang", times=2)
    patient = client(server, proxy.endpoint, read_timeout=30, retries={"total_max_attempts": 1})
    hasty = client(server, proxy.endpoint, read_timeout=0.5, retries={"total_max_attempts": 1})
    errors = pytest.importorskip("botocore.exceptions")
    with pytest.raises(errors.ReadTimeoutError):
        hasty.head_object(Bucket=bucket, Key="one")
    threading.Timer(0.5, proxy.close).start()
    with pytest.raises(errors.BotoCoreError) as ended:
        patient.head_object(Bucket=bucket, Key="one")
    assert not isinstance(ended.value, errors.ReadTimeoutError)
    proxy.close()
    with pytest.raises(ValueError, match="unknown fault 'flood'"):
        proxy.fault("flood")


def test_two_servers_live_side_by_side_and_leave_nothing(server: S3) -> None:
    with running() as other:
        assert not set(other.ports.values()) & set(server.ports.values())
        put(other.filesystem, f"{other.bucket('elsewhere')}/one", b"1")
        assert server.filesystem.get_file_info("elsewhere").type is fs.FileType.NotFound
        pid, folder = other._server.pid, other.folder
        assert 0 < other.memory_mb < 700
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
