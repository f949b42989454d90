"""The GPU budget: which replicas fit on which cards, and what sharing a card costs. And who may
listen to others than this machine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import exposure
from cluster.capacity import Card, Node, NoRoom, book, require_room, without_node
from cluster.exposure import Exposed, is_loopback, require_closed
from cluster.preflight import check_exposure, check_tiers
from cluster.stage import StageConfig
from cluster.tiers import TierConfig
from serve.config import load
from serve.edge.auth import AuthConfig

CLUSTER = Path(__file__).parents[2] / "cluster"


def stage(num_gpus: float, min_replicas: int = 1, **labels: str) -> StageConfig:
    return StageConfig(
        num_gpus=num_gpus, min_replicas=min_replicas, max_replicas=16, labels=dict(labels)
    )


def test_deployments_without_a_node_are_found() -> None:
    stages = {
        "a100": stage(1, tier="a100"),
        "rtx4090": stage(1, tier="rtx4090"),
        "asleep": stage(1, 0, tier="h200"),
        "anywhere": stage(0),
    }
    nodes = [Node.of({"tier": "a100", "zone": "1"}, 1), Node.of({}, 0)]
    assert without_node(stages, nodes) == ["rtx4090"]


def ray_node(labels: dict[str, str], gpus: int = 0, cpus: int = 8, alive: bool = True) -> Any:
    return {"Labels": labels, "Resources": {"GPU": gpus, "CPU": cpus}, "Alive": alive}


A100 = {"tier": "a100", "vram-gb": "80"}


@pytest.mark.parametrize(
    ("stages", "nodes", "says"),
    [
        ({"unet": stage(1, tier="a100")}, [ray_node({}, 8)], "no node has the labels"),
        ({"unet": stage(1, tier="a100")}, [ray_node(A100, 1, alive=False)], "no node has"),
        ({"unet": stage(1, 2, tier="a100")}, [ray_node(A100, 1)], r"no node has room for unet \("),
        ({"unet": stage(0.8), "vae": stage(0.2)}, [ray_node(A100, 1)], "1.2 GB too much"),
        ({"text": StageConfig(num_cpus=9)}, [ray_node({}), ray_node({}, alive=False)], "9 CPUs"),
    ],
)
def test_what_can_never_start_is_named(stages: Any, nodes: Any, says: str) -> None:
    with pytest.raises(NoRoom, match=says):
        require_room(stages, nodes)


def test_what_fits_is_let_through() -> None:
    stages = {"unet": stage(0.76, tier="a100"), "vae": stage(0.18), "text": stage(0)}
    require_room(stages, [ray_node(A100, 1), ray_node({"role": "head"})])


@pytest.mark.parametrize(
    ("stages", "cards", "left_over"),
    [
        ({"unet": stage(0.76), "vae": stage(0.18)}, 1, []),
        ({"vae": stage(0.3), "unet": stage(0.76)}, 1, ["vae"]),
        ({"vae": stage(0.3), "unet": stage(0.76)}, 2, []),
        (
            {"text": stage(0.1), "photo": stage(0.1), "unet": stage(0.8), "vae": stage(0.1)},
            1,
            ["vae"],
        ),
        ({"vae": stage(0.1, 10)}, 1, []),
        ({"vae": stage(0.1, 11)}, 1, ["vae"]),
        ({"unet": stage(2), "vae": stage(0.1)}, 2, ["vae"]),
        ({"unet": stage(2), "vae": stage(0.1)}, 3, []),
        ({"unet": stage(1, 0)}, 0, []),
        ({"mp4": stage(0)}, 0, []),
    ],
)
def test_every_replica_that_must_run_finds_room_on_a_card(
    stages: dict[str, StageConfig], cards: int, left_over: list[str]
) -> None:
    assert book(stages, [Node.of({}, cards)]) == left_over


def cpu_stage(num_cpus: float, replicas: int, num_gpus: float = 0, **labels: str) -> StageConfig:
    return StageConfig(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        min_replicas=replicas,
        max_replicas=replicas,
        labels=dict(labels),
    )


@pytest.mark.parametrize(
    ("stages", "nodes", "left_over"),
    [
        # Six CPUs for six, and the third replica has one of each node's.
        ({"mp4": cpu_stage(2, 3)}, [(0, 3), (0, 3)], ["mp4"]),
        ({"mp4": cpu_stage(2, 3)}, [(0, 4), (0, 3)], []),
        # The card is free, the CPUs beside it are not.
        ({"unet": cpu_stage(2, 2, 0.5)}, [(1, 3), (0, 3)], ["unet"]),
        ({"unet": cpu_stage(2, 1, 0.7), "vae": cpu_stage(2, 1, 0.2)}, [(1, 3), (0, 9)], ["vae"]),
        ({"unet": cpu_stage(2, 1, 0.7), "vae": cpu_stage(1, 1, 0.2)}, [(1, 3), (0, 9)], []),
        # What needs no card leaves those of a card alone, the larger one comes first.
        ({"text": cpu_stage(4, 1), "unet": cpu_stage(2, 1, 1)}, [(1, 4), (0, 4)], []),
        ({"small": cpu_stage(1, 3), "text": cpu_stage(4, 1)}, [(0, 4), (0, 3)], []),
        ({"none": cpu_stage(0, 1), "text": cpu_stage(4, 1)}, [(0, 4)], []),
    ],
)
def test_every_replica_that_must_run_finds_its_cpus_on_one_node(
    stages: dict[str, StageConfig], nodes: list[tuple[int, int]], left_over: list[str]
) -> None:
    """Nodes as their cards and CPUs."""
    assert book(stages, [Node.of({}, cards, cpus) for cards, cpus in nodes]) == left_over


def test_who_may_go_to_few_nodes_goes_first() -> None:
    stages = {
        "anywhere": cpu_stage(2, 1),
        "unet": cpu_stage(2, 1, 1),
        "api": cpu_stage(2, 1, role="head"),
    }
    assert book(stages, [Node.of({"role": "head"}, 1, 2), Node.of({}, 1, 4)]) == []


def test_cpus_in_pieces_are_not_taken_for_room() -> None:
    stages = {"mp4": cpu_stage(2, 3)}
    with pytest.raises(
        NoRoom, match=r"0 GPUs and 6 CPUs, .* no node has room for mp4 \(0 GPU, 2 CPU\)"
    ):
        require_room(stages, [ray_node({}, cpus=3)] * 2)
    require_room(stages, [ray_node({}, cpus=3)] * 3)


def test_whole_cards_of_one_replica_are_on_one_node() -> None:
    assert book({"unet": stage(2)}, [Node.of({}, 1), Node.of({}, 1)]) == ["unet"]


def test_labels_decide_whose_cards_are_booked() -> None:
    stages = {
        "anywhere": stage(0.5),
        "unet": stage(0.76, tier="a100"),
        "vae": stage(0.3, tier="a100"),
    }
    other, a100 = Node.of({}, 1), Node.of({"tier": "a100"}, 1)
    assert book(stages, [a100, other]) == ["vae"]
    assert (a100.cards[0].shares, other.cards[0].shares) == ([0.76], [0.5])


def test_contexts_are_counted_where_a_card_is_shared() -> None:
    assert Card([0.8, 0.2]).lacks_gb(24) == 1.2
    assert Card([0.76, 0.18]).lacks_gb(24) == 0
    assert Card([0.76, 0.18]).lacks_gb(12) == pytest.approx(0.48)
    assert Card([1]).lacks_gb(24) == 0


def test_a_tier_whose_card_is_too_full_is_warned_of() -> None:
    tier = TierConfig(name="a100", labels={"tier": "a100"}, vram_gb=80, num_gpus=0.8)
    others = {"vae": stage(0.2, 0, tier="a100"), "elsewhere": stage(0.2, tier="rtx4090")}
    (check,) = check_tiers([tier], {"unet": tier, **others})
    assert check.status == "warn"
    assert "0.8 + 0.2 of one card" in check.found
    assert "no cluster was asked" in check.found
    (check,) = check_tiers([tier], {"unet": tier, "vae": stage(0.18, tier="a100")})
    assert (check.status, "= 64 GB" in check.found) == ("ok", True)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.0.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("::ffff:10.0.0.7", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_without_keys_only_loopback_is_listened_to(host: str, alone: bool) -> None:
    assert is_loopback(host) == alone
    assert check_exposure(host, auth_enabled=True).status == "ok"
    refused = check_exposure(host, auth_enabled=False)
    assert refused.status == ("ok" if alone else "fail")
    assert alone or "SHOPREEL_AUTH__ENABLED" in refused.fix


@pytest.mark.parametrize(
    ("host", "auth", "token", "says"),
    [
        ("127.0.0.1", False, False, None),
        (None, False, False, None),
        ("0.0.0.0", True, True, None),
        ("0.0.0.0", False, True, "auth.enabled"),
        ("0.0.0.0", True, False, "RAY_AUTH_MODE=token"),
        ("10.0.0.7", False, False, "auth.enabled"),
    ],
)
def test_beyond_loopback_keys_and_rays_token_are_required(
    monkeypatch: pytest.MonkeyPatch, host: str | None, auth: bool, token: bool, says: str | None
) -> None:
    monkeypatch.setattr(exposure, "_http_host", lambda: host)
    monkeypatch.setattr(exposure, "_ray_wants_token", lambda: token)
    if says is None:
        return require_closed(auth)
    with pytest.raises(Exposed, match=says):
        require_closed(auth)
    return None


def test_the_shipped_files_are_closed() -> None:
    for name, enabled in (("local", False), ("one_gpu", False), ("production", True)):
        document = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
        auth = AuthConfig(**document["applications"][0]["args"].get("auth", {}))
        assert auth.enabled is enabled
        check = check_exposure(document["http_options"]["host"], auth.enabled)
        assert check.status == "ok"


def test_the_shipped_fractions_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Node.of({}, 1)
    assert book(load(CLUSTER / "one_gpu.yaml").app.deployments, [gpu]) == []
    assert gpu.cards[0].shares == [0.72, 0.17]
    assert gpu.cards[0].lacks_gb(12) == 0
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__ACCESS_KEY", "key")
    monkeypatch.setenv("SHOPREEL_OBJECT_STORE__SECRET_KEY", "secret")
    monkeypatch.setenv("SHOPREEL_JOB_STORE__URL", "sqlite:////srv/shopreel/jobs.sqlite")
    app = load(CLUSTER / "production.yaml").app
    assert [c.status for c in check_tiers(app.tiers, app.deployments)] == ["ok", "ok"]
