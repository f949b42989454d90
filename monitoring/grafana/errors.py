"""Why a Grafana could not be brought up to date.

GrafanaError
├── GrafanaUnreachable   nothing answers, or too late
├── TokenRefused         401, 403: the token is wrong, or may not do this
├── GrafanaConflict      409, 412: another thing has the name, or somebody saved in between
├── BodyRefused          400 and other 4xx: this Grafana does not know what we sent
└── GrafanaFailed        5xx
"""

from collections.abc import Iterator
from contextlib import contextmanager

from grafana_client.client import GrafanaException, GrafanaTimeoutError


class GrafanaError(Exception):
    """The message is fit for a person: what was tried, what came back, what to do."""


class GrafanaUnreachable(GrafanaError):
    pass


class TokenRefused(GrafanaError):
    pass


class GrafanaConflict(GrafanaError):
    pass


class BodyRefused(GrafanaError):
    pass


class GrafanaFailed(GrafanaError):
    pass


@contextmanager
def translated(trying: str) -> Iterator[None]:
    """Raises a GrafanaError for what grafana-client or its transport raises in the block."""
    try:
        yield
    except GrafanaTimeoutError as e:
        raise GrafanaUnreachable(f"{trying}: no answer in time") from e
    except GrafanaException as e:
        raise _error(e, trying) from e
    except OSError as e:  # its transport's, which it does not wrap
        raise GrafanaUnreachable(f"{trying}: {e}") from e


def _error(error: GrafanaException, trying: str) -> GrafanaError:
    said = f"{trying}: Grafana answered {error.status_code}, {error.message}"
    match error.status_code:
        case 401 | 403:
            return TokenRefused(f"{said}; it takes a service account's token with the role Admin")
        case 409 | 412:
            return GrafanaConflict(
                f"{said}; something else has this name, or was saved meanwhile: look, then push"
                " again"
            )
        case status if status >= 500:
            return GrafanaFailed(f"{said}; push again later: what was done is not done twice")
        case _:
            return BodyRefused(said)
