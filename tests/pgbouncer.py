"""A real PgBouncer (Debian's `pgbouncer`) in front of the tests' PostgreSQL, on a free port of loopback."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.programs import missing

CONFIGURATION = """
[databases]
* = host={host} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
max_client_conn = 100
default_pool_size = {sessions}
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


@contextmanager
def running_pgbouncer(server_url: str, mode: str) -> Iterator[str]:
    """Gives a URL without a database. In transaction mode few sessions are shared by whoever comes."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        missing("pgbouncer", "install Debian's package `pgbouncer`.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = urlsplit(server_url)
    host = parse_qs(server.query).get("host", [server.hostname or "127.0.0.1"])[0]
    with tempfile.TemporaryDirectory(prefix="farebox-pgbouncer-") as name:
        folder = Path(name)
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            CONFIGURATION.format(
                host=host,
                user=server.username or "postgres",
                port=port,
                mode=mode,
                sessions=3 if mode == "transaction" else 20,  # in session mode each client needs its own
                folder=folder,
            )
        )
        command = [program, str(settings)]
        if os.geteuid() == 0:  # it doesn't run as root, and must reach the server's socket
            command += ["-u", Path(host).owner()]
            folder.chmod(0o777)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(1000):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            else:
                raise AssertionError((folder / "pgbouncer.log").read_text())
            yield f"postgresql://postgres@127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
