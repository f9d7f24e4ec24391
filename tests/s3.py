"""A server of the S3 kind: moto's, in a virtual environment of its own (`tests.clients.installing`)."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from gateway.process.server import listen
from tests import programs
from tests.clients import installing

BUCKET = "farebox-files"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a server with an empty bucket; while it runs, AWS_* say how it is reached."""
    programs.starts("moto_server")
    program = installing.s3_server()
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    before = dict(os.environ)
    try:
        for _ in range(300):
            try:
                httpx.put(f"{url}/{BUCKET}", trust_env=False).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        os.environ.update({**CREDENTIALS, "AWS_ENDPOINT_URL": url})
        yield url
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.terminate()
        process.wait()
