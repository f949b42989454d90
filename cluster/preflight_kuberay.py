"""Checks of the manifest around a Serve config: what KubeRay would refuse or wait for, and what an
upgrade would lack."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from cluster.capacity import Node, book
from cluster.kuberay import AuthOptions, Pool, RayService
from cluster.preflight import Check
from cluster.preflight_stores import PLACEHOLDER
from cluster.stage import StageConfig

_SHORTEST_TOKEN = 32
"""Characters of Ray's token: 128 bits where they are hexadecimal."""


def check_service(
    service: RayService, port: int, variables: Collection[str], *, waits: bool
) -> Iterator[Check]:
    """The manifest around the Serve config. `port`: where Serve listens; `variables`: what the
    configuration takes from the environment; `waits`: its wait_for_nodes."""
    if waits:
        yield Check("wait_for_nodes", "ok", "true: the pools grow on demand")
    else:
        found = "false, and KubeRay deploys when the head is up, before any worker"
        yield Check("wait_for_nodes", "fail", found, "set it to true in args")
    yield _each_pool(
        "port serve",
        {p.group_name: f"{p.serve_port}" for p in service.pools if p.serve_port != port},
        f"{port}, where Serve listens",
        "no pod becomes ready without: name it `serve` in the container's ports",
    )
    yield _check_variables(service.pools, variables)
    yield _each_pool(
        "node labels",
        {p.group_name: "rayStartParams" for p in service.pools if "labels" in p.ray_start_params},
        "its Ray labels in `labels` of the group",
        "move them there: KubeRay refuses them elsewhere, and Ray's autoscaler ignores them",
    )


def _check_variables(pools: Sequence[Pool], variables: Collection[str]) -> Check:
    lacking = {
        pool.group_name: (f"no {', '.join(lacks)}", pool.variable_sources)
        for pool in pools
        if (lacks := sorted(set(variables) - pool.variables))
    }
    wrong = {name: lacks for name, (lacks, sources) in lacking.items() if not sources}
    if wrong or not lacking:
        return _each_pool(
            "variables",
            wrong,
            "those that the configuration takes from the environment",
            "add them to the container's env: a replica may start on any node",
        )
    found = "; ".join(
        f"pool {name}: {lacks} but for what {', '.join(sources)} may bring"
        for name, (lacks, sources) in lacking.items()
    )
    return Check("variables", "warn", found, "see that these keys are there, or name them in env")


def check_upgrade(service: RayService, stages: Mapping[str, StageConfig], *, sqlite: bool) -> Check:
    """What two clusters at once would need; `sqlite`: the job table is a file."""
    if not service.runs_two_clusters:
        return Check("upgrade", "ok", "one cluster at a time: the service is away meanwhile")
    if sqlite:
        found = "KubeRay runs two clusters for a while, and an SQLite file is on one node"
        fix = "write upgradeStrategy: {type: None}, or use Postgres"
        return Check("upgrade", "fail", found, fix)
    found = "a second cluster takes over: both use the one job table"
    if cards := _cards_to_start_with(service.pools, stages):
        words = ", ".join(f"{count} GPU of pool {name}" for name, count in cards.items())
        fix = "have them free, and more under load: maxReplicas is each cluster's own"
        return Check("upgrade", "warn", f"{found}; it starts beside the first, with {words}", fix)
    return Check("upgrade", "ok", found)


def _cards_to_start_with(
    pools: Sequence[Pool], stages: Mapping[str, StageConfig]
) -> dict[str, int]:
    """By pool: of the nodes that it keeps, or that the replicas that must run take if more."""
    nodes = {
        pool.group_name: [Node.of(pool.labels, pool.gpus, pool.cpus) for _ in range(pool.max_nodes)]
        for pool in pools
    }
    book(stages, [node for each in nodes.values() for node in each])
    cards = {}
    for pool in pools:
        used = sum(any(card.shares for card in node.cards) for node in nodes[pool.group_name])
        cards[pool.group_name] = pool.gpus * max(used, pool.min_replicas * pool.num_of_hosts)
    return {name: count for name, count in cards.items() if count}


def check_ray_token(auth: AuthOptions, token: str | None) -> Check:
    """Of the Secret that KubeRay gives every node. `token`: RAY_AUTH_TOKEN as it is here, which is
    looked at in its stead."""
    name, fix = "secret RAY_AUTH_TOKEN", "make one with `openssl rand -base64 32`"
    if auth.mode != "token":
        found = "not wanted: whoever reaches Ray's ports runs code on every node"
        return Check(name, "fail", found, "write authOptions: {mode: token, secretName: …}")
    if auth.enable_k8s_token_auth:
        found = "enableK8sTokenAuth, which KubeRay refuses in a RayService"
        return Check(name, "fail", found, "name a Secret in authOptions.secretName instead")
    if auth.secret_name is None:
        return Check(name, "ok", "KubeRay makes one for each cluster")
    if not token:
        found = f"not set here, so that nobody knows what the Secret {auth.secret_name} holds"
        read = (
            f"kubectl -n NAMESPACE get secret {auth.secret_name} -o jsonpath='{{.data.auth_token}}'"
        )
        return Check(name, "fail", found, f'export RAY_AUTH_TOKEN="$({read} | base64 -d)"')
    if PLACEHOLDER in token:
        return Check(name, "fail", "still the example's", fix)
    if len(token) < _SHORTEST_TOKEN:
        found = f"{len(token)} characters: fewer than {_SHORTEST_TOKEN} can be guessed"
        return Check(name, "fail", found, fix)
    return Check(name, "ok", f"from the environment; Secret {auth.secret_name} must hold the same")


def _each_pool(name: str, wrong: Mapping[str, str], wanted: str, fix: str) -> Check:
    """`wrong`: what a pool has instead, by its name."""
    if not wrong:
        return Check(name, "ok", f"every pool has {wanted}")
    found = "; ".join(f"pool {pool}: {what}" for pool, what in wrong.items())
    return Check(name, "fail", f"{found}; wanted: {wanted}", fix)
