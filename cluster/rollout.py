"""Checks before a rollout: what Ray would wait for without a word and what Serve would refuse, on a
cluster that runs and in the pools that a RayService may grow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from cluster.capacity import VRAM_LABEL, NoRoom, require_room
from cluster.dashboard import ClusterUnreachable, RayDashboard
from cluster.kuberay import Pool, RayService
from cluster.preflight import Check
from cluster.preflight_stores import HTTP_DATE_S, check_clock
from cluster.stage import StageConfig
from cluster.tiers import TierConfig

RayNodes = Sequence[Mapping[str, Any]]
"""As `ray.nodes()` lists them."""


def check_cluster(
    address: str,
    stages: Mapping[str, StageConfig],
    tiers: Sequence[TierConfig],
    http: tuple[str, int],
    *,
    grows: bool,
) -> Iterator[Check]:
    """The cluster whose dashboard answers there. `http`: where Serve shall listen; `grows`: nodes
    join on demand, so that it is no failure when the present ones have no room."""
    try:
        with RayDashboard(address) as dashboard:
            yield _check_version(dashboard)
            yield _check_token(dashboard)
            yield check_clock("clock of the head", dashboard.clock_ahead_s(), HTTP_DATE_S)
            yield _check_serve(dashboard, http)
            yield from _check_room("nodes", dashboard.nodes(), stages, tiers, grows=grows)
    except ClusterUnreachable as e:
        fix = "give --address http://HEAD:8265, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        yield Check("Ray cluster", "fail", str(e), fix)


def check_pools(
    service: RayService, stages: Mapping[str, StageConfig], tiers: Sequence[TierConfig]
) -> Iterator[Check]:
    """Whether the pools, grown as far as they may, hold what must run, and what may."""
    for pool in service.pools:
        cards = f"{pool.gpus} GPU and " if pool.gpus else ""
        count = f"{pool.min_replicas * pool.num_of_hosts}–{pool.max_nodes}"
        found = f"{count} nodes of {cards}{pool.cpus} CPUs, labelled {_words(pool.labels)}"
        yield Check(f"pool {pool.group_name}", "ok", found)
    nodes = [_node(pool) for pool in service.pools for _ in range(pool.max_nodes)]
    yield from _check_room("pools", nodes, stages, tiers, grows=False)


def _check_version(dashboard: RayDashboard) -> Check:
    version = dashboard.ray_version()
    if version != ray.__version__:
        found = f"Ray {version}; here is {ray.__version__}"
        fix = "use one image, or one constraints.txt, everywhere"
        return Check("Ray cluster", "fail", found, fix)
    return Check("Ray cluster", "ok", f"Ray {version} at {dashboard.url}")


def _check_token(dashboard: RayDashboard) -> Check:
    if dashboard.wants_token():
        return Check("Ray token", "ok", "whoever has none is refused")
    found = "none is wanted: whoever reaches this port runs code on every node"
    fix = "start every node with RAY_AUTH_MODE=token and the same token"
    return Check("Ray token", "fail", found, fix)


def _check_serve(dashboard: RayDashboard, http: tuple[str, int]) -> Check:
    host, port = http
    match dashboard.serve_address():
        case None:
            return Check("Serve", "ok", f"does not run yet; will listen on {host}:{port}")
        case running if running == http:
            return Check("Serve", "ok", f"listens on {host}:{port}")
        case running_host, running_port:
            found = f"listens on {running_host}:{running_port} and will not move to {host}:{port}"
            fix = "leave http_options as they were, or run `serve shutdown` first"
            return Check("Serve", "fail", found, fix)


def _check_room(
    name: str,
    nodes: RayNodes,
    stages: Mapping[str, StageConfig],
    tiers: Sequence[TierConfig],
    *,
    grows: bool,
) -> Iterator[Check]:
    cards, cpus = (sum(node["Resources"].get(what, 0) for node in nodes) for what in ("GPU", "CPU"))
    found = f"{len(nodes)} nodes with {cards:g} GPUs and {cpus:g} CPUs"
    if why := _too_small(tiers, nodes):
        fix = f"correct vram_gb of the tier, or the label {VRAM_LABEL} of the nodes"
        yield Check(name, "fail", f"{found}; {why}", fix)
    elif why := _lack(stages, nodes):
        fix = "fine where nodes join on demand" if grows else "Ray would wait for ever, silently"
        yield Check(name, "warn" if grows else "fail", f"{found}; {why}", fix)
    else:
        yield Check(name, "ok", f"{found}: room for what must run")
        if not grows and (why := _lack(_at_most(stages), nodes)):
            yield Check(f"{name} at most", "warn", why, "max_replicas is more than there can be")


def _lack(stages: Mapping[str, StageConfig], nodes: RayNodes) -> str | None:
    try:
        require_room(stages, nodes)
    except NoRoom as e:
        return str(e)
    return None


def _at_most(stages: Mapping[str, StageConfig]) -> dict[str, StageConfig]:
    """As if every replica that may run must."""
    return {
        name: stage.model_copy(update={"min_replicas": stage.max_replicas})
        for name, stage in stages.items()
    }


def _too_small(tiers: Sequence[TierConfig], nodes: RayNodes) -> str | None:
    for tier in tiers:
        for node in nodes:
            has_gb = float(node["Labels"].get(VRAM_LABEL, tier.vram_gb))
            if tier.labels.items() <= node["Labels"].items() and has_gb < tier.vram_gb:
                return f"tier {tier.name} counts on {tier.vram_gb:g} GB, a card has {has_gb:g}"
    return None


def _node(pool: Pool) -> dict[str, Any]:
    resources = {"CPU": pool.cpus, "GPU": pool.gpus}
    return {"Alive": True, "Labels": pool.labels, "Resources": resources}


def _words(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "with nothing"
