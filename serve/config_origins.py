"""Which setting is in force, and where it came from: the environment, the file, or a default."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Given:
    """What was set, by whom."""

    environment: Mapping[str, Any]  # by section and field
    variables: Set[str]  # their names, upper case
    args: Mapping[str, Any]  # of the file
    file: str


def settings_in_force(
    shown: Mapping[str, Any], given: Given, prefix: str
) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, origin) of every setting in `shown`; `prefix` is the variables'."""

    def settings(
        shown: Mapping[str, Any], environment: Any, args: Any, *parents: str
    ) -> Iterator[tuple[str, Any, str]]:
        for key, value in shown.items():
            names = (*parents, key)
            ours, theirs = _part(environment, key), _part(args, key)
            if isinstance(value, dict) and value:
                yield from settings(value, ours, theirs, *names)
            elif ours is not _ABSENT:
                yield ".".join(names), value, f"environment {variable(names)}"
            else:
                yield ".".join(names), value, "default" if theirs is _ABSENT else given.file

    def variable(names: tuple[str, ...]) -> str:
        """The variable that sets it: its own, or one with a whole section as JSON."""
        candidates = (
            f"{prefix}{'__'.join(names[:end])}".upper() for end in range(len(names), 0, -1)
        )
        return next(name for name in candidates if name in given.variables)

    return settings(shown, given.environment, given.args)


def _part(values: Any, key: str) -> Any:
    return values.get(key, _ABSENT) if isinstance(values, Mapping) else _ABSENT
