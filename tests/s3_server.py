"""An S3 server in a process of its own: ``python -m tests.s3_server`` prints its address and ends with its input."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def serve() -> None:
    """Answer until the other end of stdin closes."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    sys.stdin.read()
    server.stop()


@contextmanager
def running() -> Iterator[str]:
    """A server whose address and credentials stand in ``os.environ``, as a user's would; yields its address."""
    command = [sys.executable, "-m", "tests.s3_server"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        address = process.stdout.readline().strip()
        before = dict(os.environ)
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=address)
        try:
            yield address
        finally:
            process.stdin.close()
            for name in (*CREDENTIALS, "AWS_ENDPOINT_URL"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def new_bucket() -> str:
    """The URL of an empty bucket."""
    import fsspec

    name = f"ap3d-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


if __name__ == "__main__":
    serve()
