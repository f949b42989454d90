"""What a run's Ray job executes: `python -m serve.catalog_driver DASHBOARD_URL TENANT OPTIONS`.

It is started on the head, whose environment completes the settings of the application that runs;
so neither keys nor passwords are handed over. Where the API wants a key, the driver issues one to
itself and revokes it when it leaves.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from catalog.errors import CatalogError
from catalog.results.errors import ResultsError
from catalog.run.drive import Surroundings, drive
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.submission import AWAY, STOPPED
from cluster.local import APP_NAME
from monitoring.logs import log_to_stderr
from serve.config import AppConfig, parse
from storage.errors import StorageError, StoreUnavailable
from storage.sql.database import Database
from storage.tenants import ApiKey, SqlTenants

log = logging.getLogger(__name__)

T = TypeVar("T")

_STORE_AGAIN_S = 2.0


class NotRunning(Exception):
    """The application is not there now: its cluster starts, or is away."""


@dataclass(frozen=True, slots=True)
class Application:
    """The service that runs on this cluster."""

    config: AppConfig
    base_url: str

    @classmethod
    def running(cls, dashboard_url: str) -> "Application":
        """Raises NotRunning."""
        try:
            details = ServeSubmissionClient(dashboard_url).get_serve_details()
        except (OSError, RuntimeError) as e:
            raise NotRunning(f"no Ray dashboard answers at {dashboard_url}: {e}") from e
        if (application := details["applications"].get(APP_NAME)) is None:
            raise NotRunning(f"{APP_NAME} is not deployed on the cluster of {dashboard_url}")
        args = application["deployed_app_config"]["args"]
        http = details["http_options"]
        host = "127.0.0.1" if http["host"] == "0.0.0.0" else http["host"]
        config = parse(args, "args of the running application")
        return cls(config, f"http://{host}:{http['port']}")

    def around(self, key: str | None) -> Surroundings:
        config = self.config
        assert config.object_store is not None  # build_app has checked it
        return Surroundings(
            self.base_url,
            key,
            config.object_store,
            config.egress,
            config.limits.photo.max_bytes,
            config.currency,
        )


def driver_command(options: RunOptions, tenant: str, dashboard_url: str) -> Sequence[str]:
    """Executes `main`."""
    asked = options.model_dump_json(exclude_defaults=True)
    return [sys.executable, "-m", "serve.catalog_driver", dashboard_url, tenant, asked]


def main(dashboard_url: str, tenant: str, options_json: str) -> None:
    options = RunOptions.model_validate_json(options_json)
    try:
        application = Application.running(dashboard_url)
        with own_key(application.config, tenant, options) as key:
            summary = asyncio.run(drive(options, application.around(key)))
    except (NotRunning, StoreUnavailable) as e:
        print(f"stopped: {e}", flush=True)  # noqa: T201  # into the job's log
        raise SystemExit(AWAY) from e
    except (CatalogError, RunError, ResultsError, StorageError) as e:
        print(f"stopped: {e}", flush=True)  # noqa: T201  # into the job's log
        raise SystemExit(STOPPED) from e
    log.info("%s: %s, %d rows", summary.run_id, summary.status, summary.tally.rows)


@contextmanager
def own_key(config: AppConfig, tenant: str, options: RunOptions) -> Iterator[str | None]:
    """An API key of the tenant for as long as the driver lives; None where nobody needs one. A
    driver revokes those of the run's earlier ones, which may have been killed, and when it leaves
    its own only: a later one may be at work.

    Raises StoreUnavailable where the job table is away for longer than the run's patience."""
    if not config.auth.enabled:
        yield None
        return
    assert config.job_store is not None
    with closing(Database(config.job_store.url)) as database:
        tenants, label = SqlTenants(database), options.run_id
        issued, key = _insisting(lambda: _renewed(tenants, tenant, label), options.patience_s)
        try:
            yield key
        finally:
            try:
                tenants.revoke(issued.id)
            except StoreUnavailable as e:  # the run's end is what it is
                log.warning("the run's key %s of %s was not revoked: %s", label, tenant, e)


def _renewed(tenants: SqlTenants, tenant: str, label: str) -> tuple[ApiKey, str]:
    for key in tenants.keys(tenant):
        if key.label == label and key.revoked_at is None:
            tenants.revoke(key.id)
    return tenants.issue_key(tenant, label=label)


def _insisting(call: Callable[[], T], patience_s: float) -> T:
    """Raises StoreUnavailable once it is away for longer than that."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except StoreUnavailable as e:
            if time.monotonic() > until:
                raise
            log.warning("the job table is waited for: %s", e)
            time.sleep(_STORE_AGAIN_S)


if __name__ == "__main__":
    log_to_stderr()
    main(*sys.argv[1:])
