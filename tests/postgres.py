"""A Postgres server of a test session's own: the real one, from PyPI, on a socket in a folder."""

import os
import signal
import tempfile
import time
from itertools import count
from types import TracebackType
from typing import Self

import psycopg
from pgserver.postgres_server import get_server

from storage.sql.database import Database

_TEMPLATE = "migrated"


class Postgres:
    """Every database is a copy of one that was migrated once: milliseconds, not a migration."""

    def __init__(self) -> None:
        # Not below pytest's folder: a socket's path has room for 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True)
        self._numbers = count()

    def __enter__(self) -> Self:
        self._server = get_server(self._folder.name)
        # Thrown away at the end: a crash of the machine may cost it all.
        self._command("ALTER SYSTEM SET fsync = off")
        self._command("SELECT pg_reload_conf()")
        self._command(f"CREATE DATABASE {_TEMPLATE}")
        Database(self._url(_TEMPLATE)).close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(signal.SIGQUIT)  # at once, nothing saved
        self._folder.cleanup()

    def new_database(self, *, migrated: bool = True) -> str:
        """The URL of a database that nobody else uses."""
        name = f"test_{next(self._numbers)}"
        self._command(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        return self._url(name)

    def drop(self, url: str) -> None:
        self._command(f"DROP DATABASE {_name(url)} WITH (FORCE)")

    def end(self, by: signal.Signals) -> None:
        """Ends the server as an accident would: `start` brings back what it had committed."""
        pid = self._server.get_pid()
        assert pid is not None
        os.kill(pid, by)
        deadline = time.monotonic() + 20
        while self._server.get_postmaster_info().is_running():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Postgres, pid {pid}, outlived {by.name}")
            time.sleep(0.02)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def _command(self, command: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as db:
            db.execute(command.encode())

    def _url(self, name: str) -> str:
        uri: str = self._server.get_uri(database=name)
        return uri.replace("postgresql://", "postgresql+psycopg://")


def _name(url: str) -> str:
    return url.split("?")[0].rsplit("/", 1)[1]
