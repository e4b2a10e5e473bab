"""A PostgreSQL server of one's own, for tests and benchmarks: made in a temporary folder, gone afterwards."""

from __future__ import annotations

import glob
import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from types import TracebackType
from typing import Any
from urllib.parse import quote

_UNPRIVILEGED = ("postgres", "nobody")  # the server refuses to run as root
_CONFIG = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 200
fsync = {fsync}
"""


def server_programs() -> str | None:
    """Return the folder of `initdb` and `pg_ctl`: of PATH, else Debian's newest; None if there is none."""
    found = shutil.which("initdb")
    if found:
        return os.path.dirname(found)
    folders = glob.glob("/usr/lib/postgresql/*/bin")
    usable = [folder for folder in folders if os.path.exists(f"{folder}/initdb")]
    return max(usable, key=lambda folder: float(re.findall(r"[\d.]+", folder)[0]), default=None)


class PrivateServer:
    """A server that listens on a socket in its own folder. A context manager.

    Args:
        fsync: off, because what a test writes need not survive the machine; a benchmark wants it on.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        programs = server_programs()
        if programs is None:
            raise RuntimeError(
                "PostgreSQL's server programs are not installed (Debian: apt install postgresql)"
            )
        self._programs = programs
        # Not where pytest keeps files: the path of a socket is short, and another user has to get there.
        self.folder = tempfile.mkdtemp(prefix="millrace-pg-")
        self._numbers = itertools.count()
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = _unprivileged()
            os.chown(self.folder, self._user["user"], self._user["group"])
        try:
            self._run(
                "initdb", "-D", self._data, "-U", "millrace", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
            )
            with open(f"{self._data}/postgresql.conf", "a", encoding="utf-8") as file:
                file.write(_CONFIG.format(folder=self.folder, fsync="on" if fsync else "off"))
            self.start()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def _data(self) -> str:
        return f"{self.folder}/data"

    def url(self, database: str = "postgres", *, user: str = "millrace", password: str = "") -> str:
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={quote(self.folder, safe='/')}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement in a database."""
        import psycopg

        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def configure(self, **settings: str) -> None:
        """Change settings of the running server."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        self._control("start", "-l", f"{self.folder}/log")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` breaks connections; `immediate` is a crash."""
        self._control("stop", "-m", mode)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        if os.path.exists(f"{self._data}/postmaster.pid"):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PrivateServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _control(self, verb: str, *options: str) -> None:
        self._run("pg_ctl", verb, "-D", self._data, "-w", "-t", "30", *options)

    def _run(self, program: str, *options: str) -> None:
        # A file for what is printed: the server would keep a pipe open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [f"{self._programs}/{program}", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
                cwd=self.folder,
                env={**os.environ, "LC_ALL": "C"},
                **self._user,
            )
            if done.returncode:
                output.seek(0)
                raise RuntimeError(f"{program} failed: {output.read().decode(errors='replace')}")


def _unprivileged() -> dict[str, Any]:
    """Return whose rights a server of root gets, as `subprocess` takes them."""
    for name in _UNPRIVILEGED:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError(
        f"none of the users {', '.join(_UNPRIVILEGED)} exists, and PostgreSQL does not run as root"
    )
