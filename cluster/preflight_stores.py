"""Checks of what several nodes share: the job table, the clocks, the secrets, the weights."""

from collections.abc import Iterator, Mapping

import httpx2

from cluster.dashboard import ahead_s
from cluster.preflight import Check, Status, check_weights
from diffusion.model_folder import ModelConfig
from storage.errors import StorageError
from storage.job_store import JobStoreConfig
from storage.object_store import ObjectStoreConfig
from storage.sql.glance import glance

HTTP_DATE_S = 2.0
"""What a clock told by HTTP is good for: it has whole seconds, and the answer takes a while."""

_SQL_TIME_S = 0.5
_CLOCKS_APART_S = 10.0
"""Dispatcher and API date leases and jobs, each by its own clock; a lease is 30 s."""
PLACEHOLDER = "REPLACE"
"""What stands in kubernetes/secrets.example.yaml."""


def check_job_table(config: JobStoreConfig | None) -> Iterator[Check]:
    """Reachable, and of what version; it is left as it is."""
    if config is None:
        yield Check("job table", "fail", "job_store is not set", "set SHOPREEL_JOB_STORE__URL")
        return
    try:
        found = glance(config.url)
    except StorageError as e:
        yield Check("job table", "fail", str(e), "see job_store in the configuration")
        return
    if not found.exists:
        yield Check("job table", "ok", "a new file: the first start makes it")
    elif found.migrations:
        steps = ", ".join(found.migrations)
        fix = "back it up: the former program cannot be started on it again"
        yield Check("job table", "warn", f"the first start brings it to {steps}", fix)
    else:
        yield Check("job table", "ok", "reachable, and of this version")
    if found.clock_ahead_s is not None:
        yield check_clock("clock of Postgres", found.clock_ahead_s, _SQL_TIME_S)


def check_bucket_clock(config: ObjectStoreConfig) -> Iterator[Check]:
    """Requests are signed with the time: S3 refuses one that is 15 minutes off."""
    url = f"{'https' if config.secure else 'http'}://{config.endpoint}/"
    try:
        answer = httpx2.head(url, timeout=config.read_timeout_s, trust_env=False)
    except httpx2.TransportError:
        return  # the check of the bucket says so
    if "date" in answer.headers:
        yield check_clock("clock of the object store", ahead_s(answer.headers), HTTP_DATE_S)


def check_clock(name: str, ahead_s: float, precision_s: float) -> Check:
    """A clock that was read to `precision_s`, against this machine's."""
    if abs(ahead_s) <= precision_s:
        return Check(name, "ok", f"as this machine's, to {precision_s:g} s")
    found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    status: Status = "fail" if abs(ahead_s) > _CLOCKS_APART_S else "warn"
    return Check(name, status, found, "have NTP set both, say by chrony")


def check_secrets(secrets: Mapping[str, tuple[str, str]], file: str) -> Iterator[Check]:
    """`secrets`: value and origin of each, by the name of its setting; `file`: the config's."""
    for name, (value, origin) in secrets.items():
        if PLACEHOLDER in value:
            yield Check(f"secret {name}", "fail", "still the example's", "put the real one in")
        elif origin == file:
            found, fix = f"stands in {file}, which many may read", "give it by the environment"
            yield Check(f"secret {name}", "warn", found, fix)
        else:
            yield Check(f"secret {name}", "ok", f"from the {origin}")


def check_nodes_weights(config: ModelConfig) -> Check:
    """Of nodes elsewhere, as far as that can be told from here: nothing is downloaded."""
    source = config.path
    if config.is_random or source.is_dir():
        return check_weights(config)
    if source.is_absolute():
        fix = "run this in a pod, or on a node, that has the folder"
        return Check("weights", "warn", f"{source} is not on this machine", fix)
    if config.revision is None or len(config.revision) != 40:
        fix = "pin model.revision to a 40-digit commit"
        return Check("weights", "fail", f"{config.source} is not pinned", fix)
    fix = "fine where they reach the hub; else put a folder on every node"
    return Check("weights", "warn", f"every node downloads {config.source} when it starts", fix)
