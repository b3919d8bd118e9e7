"""A local S3 server for tests, and bytes changed behind a store's back."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest

from lmmcl.ledger import Ledger

BUCKET = "lmmcl-test"


@contextmanager
def s3_server() -> Iterator[str]:
    """A server in this process; yields the URI of a bucket in it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    # moto keeps its buckets for the process, not for the server: an earlier test's would still be there
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}"
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def damage(ledger: Ledger, path: str, name: str, *, truncate: bool = False) -> None:
    """Change (or cut) a file of a recorded step, as a node sees it that has no copy of its own."""
    shutil.rmtree(ledger.node.folder, ignore_errors=True)
    record = ledger.read(path)
    assert record is not None
    file = f"{ledger.store}/{record.folder}/{name}"
    with fsspec.open(file, "rb") as stream:
        content = bytearray(stream.read())
    if truncate:
        content = content[: len(content) // 2]
    else:
        content[-5] ^= 1
    with fsspec.open(file, "wb") as stream:
        stream.write(bytes(content))
