"""What a run's Ray job executes: `python -m serve.catalog_driver DASHBOARD_URL TENANT OPTIONS`.

It is started on the head, whose environment completes the settings of the application that runs;
so neither keys nor passwords are handed over. Where the API wants a key, the driver issues one to
itself and revokes it when it leaves.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from catalog.errors import CatalogError
from catalog.results.errors import ResultsError
from catalog.run.drive import Surroundings, drive
from catalog.run.errors import RunError
from catalog.run.options import RunOptions
from catalog.run.submission import STOPPED
from cluster.local import APP_NAME
from serve.config import AppConfig, parse
from storage.errors import StorageError
from storage.sql.database import Database
from storage.tenants import SqlTenants

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Application:
    """The service that runs on this cluster."""

    config: AppConfig
    base_url: str

    @classmethod
    def running(cls, dashboard_url: str) -> "Application":
        details = ServeSubmissionClient(dashboard_url).get_serve_details()
        args = details["applications"][APP_NAME]["deployed_app_config"]["args"]
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
    application = Application.running(dashboard_url)
    try:
        with _own_key(application.config, tenant, options.run_id) as key:
            summary = asyncio.run(drive(options, application.around(key)))
    except (CatalogError, RunError, ResultsError, StorageError) as e:
        print(f"stopped: {e}", flush=True)  # noqa: T201  # into the job's log
        raise SystemExit(STOPPED) from e
    log.info("%s: %s, %d rows", summary.run_id, summary.status, summary.tally.rows)


@contextmanager
def _own_key(config: AppConfig, tenant: str, run_id: str) -> Iterator[str | None]:
    """An API key of the tenant for as long as the driver lives; None where nobody needs one. The
    key of a driver that was killed is revoked by the next one."""
    if not config.auth.enabled:
        yield None
        return
    assert config.job_store is not None
    with closing(Database(config.job_store.url)) as database:
        tenants = SqlTenants(database)
        _revoke(tenants, tenant, run_id)
        _, key = tenants.issue_key(tenant, label=run_id)
        try:
            yield key
        finally:
            _revoke(tenants, tenant, run_id)


def _revoke(tenants: SqlTenants, tenant: str, label: str) -> None:
    for key in tenants.keys(tenant):
        if key.label == label and key.revoked_at is None:
            tenants.revoke(key.id)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main(*sys.argv[1:])
