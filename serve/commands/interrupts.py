"""SIGTERM and Ctrl-C end a command in order. Imports nothing slow: it guards the imports, too."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def interruptible() -> Iterator[None]:
    """Either signal leaves the block as a KeyboardInterrupt, and the command with exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
