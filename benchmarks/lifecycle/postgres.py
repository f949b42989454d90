"""A Postgres server of the benchmark's own, from PyPI, with its defaults."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from pgserver.postgres_server import get_server


@contextmanager
def postgres_url() -> Iterator[str]:
    # A socket's path has room for 107 bytes.
    with TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder)
        try:
            uri: str = server.get_uri()
            yield uri.replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()
