"""ETAs: exact where nothing is left to chance, and near the truth in a simulated cluster."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import pytest

from cluster.cost import CostModel
from cluster.eta import Snapshot, TierState, Work, eta_s
from cluster.ladder import Floor
from cluster.tiers import CameraTierConfig, TierConfig
from deployments.dispatch.fleet import Fleet, Replicas
from deployments.dispatch.foresight import Foresight
from diffusion.model_folder import ModelConfig
from diffusion.params import Priority, SamplingParams
from storage.facts import SqlFacts
from storage.jobs import Job, JobStatus, Stage
from storage.sql.database import Database
from tests.sample_jobs import Clock, make_request
from tests.sample_model import ARCHITECTURE

STAGE_S = {
    Stage.ENCODING: 1.0,
    Stage.DECODING: 2.0,
    Stage.ENCODING_VIDEO: 2.5,
    Stage.STORING: 0.5,
}
TIERS = [
    TierConfig(name="fast", tflops=40, max_ongoing_requests=4),
    TierConfig(name="slow", tflops=15, max_ongoing_requests=2),
]
COST = CostModel(ARCHITECTURE, TIERS, ModelConfig(source="i2vgen-xl"), {})
CLIP = SamplingParams("a bag turns", "", 512, 512, 16, 50, 9.0, 16, seed=1)
NONE = Work()
OWN_S = COST.seconds(CLIP, "fast")


def a_job(name: str = "job", **changes: Any) -> Job:
    request = replace(make_request(name), sampling=changes.pop("sampling", CLIP))
    request = replace(request, priority=changes.pop("priority", Priority.INTERACTIVE))
    values = {"status": JobStatus.IN_PROGRESS, "created_at": 0.0, "tier": "fast", "attempt": 1}
    return Job(request=request, **cast(Any, values | changes))


def a_tier(
    running: Work = NONE, batch: Work = NONE, queued: Work = NONE, **changes: Any
) -> TierState:
    tier = TierState(
        replicas=1,
        slots=4,
        cold_start_s=60.0,
        starts_from_zero=False,
        tflops=40.0,
        running={Priority.INTERACTIVE: running, Priority.BATCH: batch},
        queued={Priority.INTERACTIVE: queued, Priority.BATCH: NONE},
    )
    return replace(tier, **changes)


def eta(job: Job, tier: TierState, position: int | None = None, now: float = 0.0) -> float | None:
    return eta_s(job, Snapshot({"fast": tier}, STAGE_S), COST, position, now)


QUEUED = a_job(status=JobStatus.QUEUED, tier=None, attempt=0)


def test_a_clip_alone_takes_its_own_seconds_and_its_stages() -> None:
    assert eta(a_job(), a_tier(Work(1, OWN_S))) == pytest.approx(OWN_S + 6)
    assert eta(QUEUED, a_tier(), 0) == pytest.approx(OWN_S + 6)


def test_equal_clips_on_one_replica_halve_its_speed() -> None:
    assert eta(a_job(), a_tier(Work(2, 2 * OWN_S))) == pytest.approx(2 * OWN_S + 6)


def test_a_mate_that_is_nearly_done_holds_up_only_for_what_is_left_of_it() -> None:
    assert eta(a_job(), a_tier(Work(2, OWN_S + 4))) == pytest.approx(OWN_S + 4 + 6)


def test_clips_on_other_replicas_hold_up_nobody() -> None:
    tier = a_tier(Work(3, 3 * OWN_S), replicas=4)
    assert eta(QUEUED, tier, 0) == pytest.approx(OWN_S + 6)


def test_batch_work_holds_up_no_person_but_people_hold_up_batch_work() -> None:
    busy = a_tier(Work(1, 7.0), batch=Work(1, OWN_S))
    person, batch = replace(QUEUED), a_job(priority=Priority.BATCH)
    assert eta(person, busy, 0) == pytest.approx(OWN_S + 7 + 6)
    assert eta(batch, busy) == pytest.approx(7 + OWN_S + 6)


def test_who_waits_behind_a_full_tier_waits_for_its_work() -> None:
    tier = a_tier(Work(4, 4 * OWN_S / 2), queued=Work(8, 8 * OWN_S))
    first, last = eta(QUEUED, tier, 0), eta(QUEUED, tier, 7)
    assert first is not None
    assert last is not None
    assert last - first == pytest.approx(7 * OWN_S - OWN_S * 1.5)  # no followers slow the last one
    assert first == pytest.approx(OWN_S / 2 + 4 * OWN_S + 6)


def test_the_tier_that_is_done_first_is_the_one_that_counts() -> None:
    full = a_tier(Work(4, 40 * OWN_S), queued=Work(40, 40 * OWN_S))
    idle = a_tier(slots=2, tflops=15.0)
    snapshot = Snapshot({"fast": full, "slow": idle}, STAGE_S)
    on_slow = COST.seconds(CLIP, "slow") + 6
    assert eta_s(QUEUED, snapshot, COST, 40, 0.0) == pytest.approx(on_slow)


def test_a_tier_at_rest_has_to_start_and_a_lost_one_is_no_prospect() -> None:
    at_rest = a_tier(replicas=0, starts_from_zero=True)
    assert eta(QUEUED, at_rest, 0) == pytest.approx(60 + OWN_S + 6)
    assert eta(QUEUED, a_tier(replicas=0), 0) is None


def test_what_the_dispatcher_has_learned_counts() -> None:
    assert eta(a_job(), a_tier(Work(1, OWN_S / 2), tflops=80.0)) == pytest.approx(OWN_S / 2 + 6)


def test_what_a_clip_has_shown_counts_the_more_the_further_it_is() -> None:
    """It runs three times slower than the model says."""
    for step, weight in ((5, 0.1), (45, 0.9)):
        left_s = OWN_S * (50 - step) / 50
        job = a_job(stage=Stage.DENOISING, step=step, started_at=100.0)
        now = 100.0 + STAGE_S[Stage.ENCODING] + 3 * (OWN_S - left_s)
        expected = left_s * (weight * 3 + (1 - weight)) + 5
        assert eta(job, a_tier(Work(1, left_s)), now=now) == pytest.approx(expected)
        again = replace(job, attempt=2)  # `started_at` is the first one's
        assert eta(again, a_tier(Work(1, left_s)), now=now) == pytest.approx(left_s + 5)


def test_behind_the_denoising_the_stages_are_left() -> None:
    assert eta(a_job(stage=Stage.DECODING, step=50), a_tier()) == 5
    assert eta(a_job(stage=Stage.ENCODING_VIDEO, step=50), a_tier()) == 3
    assert eta(a_job(stage=Stage.STORING, step=50), a_tier()) == 0.5


def test_no_stage_on_the_way_brings_the_end_further_off() -> None:
    """The same moment seen from every stage: what a stage leaves behind is never added again."""
    way = [
        (Stage.ENCODING, 0),
        (Stage.WAITING_DENOISER, 0),
        *((Stage.DENOISING, step) for step in range(20)),
        (Stage.WAITING_DENOISER, 20),
        *((Stage.DENOISING, step) for step in range(20, 51)),
        *((stage, 50) for stage in (Stage.DECODING, Stage.ENCODING_VIDEO, Stage.STORING)),
    ]
    etas = []
    for stage, step in way:
        job = a_job(stage=stage, step=step, started_at=100.0)
        now = 100.0 + STAGE_S[Stage.ENCODING] + OWN_S * step / 50
        left_s = eta(job, a_tier(Work(1, OWN_S * (50 - step) / 50)), now=now)
        assert left_s is not None
        etas.append(round(left_s, 9))
    assert etas == sorted(etas, reverse=True)
    assert len(set(etas)) == len(way) - 3  # the turns it waits for, and denoising's end, cost none


@pytest.mark.parametrize(
    "job",
    [
        a_job(stage=Stage.WAITING_STORAGE, step=50),
        a_job(status=JobStatus.COMPLETED),
        a_job(tier="removed"),
    ],
)
def test_what_nobody_knows_is_none(job: Job) -> None:
    assert eta(job, a_tier()) is None


def test_a_stage_that_was_never_measured_leaves_the_eta_open() -> None:
    assert eta_s(a_job(), Snapshot({"fast": a_tier()}), COST, None, 0.0) is None


def test_a_camera_move_spares_steps_and_has_its_frames_encoded() -> None:
    tail = replace(CLIP, motion_strength=0.4)
    own_s, frames_s = OWN_S * 20 / 50, STAGE_S[Stage.DECODING] * COST.encode_share(tail)
    tier, job = a_tier(Work(1, own_s)), a_job(sampling=tail)
    assert eta(job, tier) == pytest.approx(own_s + frames_s + 6)
    halfway = a_job(sampling=tail, stage=Stage.DENOISING, step=10)
    assert eta(halfway, a_tier(Work(1, own_s / 2))) == pytest.approx(own_s / 2 + 5)
    observed = replace(halfway, started_at=0.0)  # ten of its twenty steps took 2 s
    assert eta(observed, a_tier(Work(1, own_s / 2)), now=3.0) == pytest.approx(
        0.5 * 2.0 + 0.5 * own_s / 2 + 5
    )


def test_a_snapshot_survives_its_json_and_another_version_is_refused() -> None:
    snapshot = Snapshot({"fast": a_tier(Work(2, 3.5))}, STAGE_S, 0.125)
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    for text in ("", "[]", "{}", '{"tiers": {"a": {}}, "stage_s": {}}'):
        with pytest.raises(ValueError, match=r"not a snapshot|Expecting"):
            Snapshot.from_json(text)


def test_a_snapshot_is_read_that_tells_less_than_this_version_does() -> None:
    """Or a rollout would forget what the Dispatcher before it had learned."""
    told = json.loads(Snapshot({"fast": a_tier()}, STAGE_S).to_json())
    for name in ("starting", "is_measured", "peak_vram_bytes"):
        del told["tiers"]["fast"][name]
    assert Snapshot.from_json(json.dumps(told)) == Snapshot({"fast": a_tier()}, STAGE_S)


def test_a_tier_tells_what_it_was_seen_to_do_and_no_more() -> None:
    fleet = a_fleet()
    state = fleet.tier_states()["fast"]
    assert (state.starting, state.is_measured, state.peak_vram_bytes) == (None, False, None)
    fleet.note_replicas({"Denoiser-fast": Replicas(1, starting=2)})
    for peak in (None, 5 << 30, 3 << 30, None):
        fleet.note_peak("fast", peak)
    fleet.cost.observe("fast", CLIP, 0, 10.0)
    state = fleet.tier_states()["fast"]
    assert (state.starting, state.is_measured, state.peak_vram_bytes) == (2, True, 5 << 30)
    slow = fleet.tier_states()["slow"]
    assert (slow.starting, slow.is_measured, slow.peak_vram_bytes) == (None, False, None)


def test_only_more_than_the_passing_of_time_is_news() -> None:
    before = Snapshot({"fast": a_tier(Work(2, 30.0))}, STAGE_S)
    assert Snapshot({"fast": a_tier(Work(2, 29.0))}, STAGE_S).shape == before.shape
    assert Snapshot({"fast": a_tier(Work(1, 29.0))}, STAGE_S).shape != before.shape
    starts = a_tier(Work(2, 30.0), starting=1)
    assert Snapshot({"fast": starts}, STAGE_S).shape != before.shape


def test_a_fact_is_replaced_and_grows_old(tmp_path: Path) -> None:
    clock = Clock()
    database = Database(f"sqlite:///{tmp_path / 'facts.sqlite'}")
    facts = SqlFacts(database, clock)
    assert facts.get("eta") is None
    facts.put("eta", "1")
    facts.put("eta", "2")
    clock.now += 7
    fact = facts.get("eta")
    assert fact is not None
    assert (fact.value, fact.age_s) == ("2", 7)
    database.close()


# A simulated cluster: the Fleet's own books and plans, replicas that share their clips fairly.


class _NoHandle:
    def options(self, **_: Any) -> "_NoHandle":
        return self


def a_fleet(**replicas: int) -> Fleet:
    cost = CostModel(ARCHITECTURE, TIERS, ModelConfig(source="i2vgen-xl"), {})
    floor = Floor(area_px=512**2, num_frames=16, size_multiple=64)
    fleet = Fleet(TIERS, [cast(Any, _NoHandle())] * len(TIERS), cost, floor)
    fleet.note_replicas({f"Denoiser-{name}": Replicas(count) for name, count in replicas.items()})
    return fleet


@dataclass
class Run:
    """A clip on a replica."""

    job: Job
    begins_at: float  # its encoding is over
    whole_s: float
    left_s: float


@dataclass
class Cluster:
    fleet: Fleet
    now: float = 1000.0
    waiting: list[Job] = field(default_factory=list)
    replicas: dict[str, list[list[Run]]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)  # of jobs, decoding and storing included
    foreseen: dict[str, list[tuple[str, float, float]]] = field(default_factory=dict)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)
        self.waiting.sort(key=lambda job: job.request.priority is Priority.BATCH)
        self.plan()
        if job in self.waiting:
            self.foresee("queued", job, self.waiting.index(job))

    def plan(self) -> None:
        plan, _ = self.fleet.plan(self.waiting, len(self.waiting), 1e9)
        leased = []
        for job_id, tier in plan.starts.items():
            (job,) = (job for job in self.waiting if job.id == job_id)
            self.waiting.remove(job)
            leased.append(
                replace(
                    job,
                    status=JobStatus.IN_PROGRESS,
                    tier=tier,
                    attempt=1,
                    started_at=self.now,
                    stage=Stage.ENCODING,
                )
            )
            self.fleet.enter(leased[-1], tier)
            own_s = self.fleet.cost.seconds(job.request.sampling, tier)
            # Rates are no laws: a clip takes a little more or less than the model says.
            own_s *= random.Random(job_id).uniform(0.9, 1.1)
            least = min(self.replicas[tier], key=len)
            least.append(Run(leased[-1], self.now + STAGE_S[Stage.ENCODING], own_s, own_s))
        for job in leased:
            self.foresee("leased", job, None)

    def foresee(self, moment: str, job: Job, position: int | None) -> None:
        snapshot = Snapshot(self.fleet.tier_states(), STAGE_S)
        left_s = eta_s(job, snapshot, self.fleet.cost, position, self.now)
        assert left_s is not None
        self.foreseen.setdefault(moment, []).append((job.id, self.now, left_s))

    def tick(self, dt: float) -> None:
        self.now += dt
        ended = False
        for replica in (replica for tier in self.replicas.values() for replica in tier):
            active = [run for run in replica if run.begins_at <= self.now]
            people = [r for r in active if r.job.request.priority is Priority.INTERACTIVE]
            for run in people or active:
                self.advance(run, dt / len(people or active))
            for run in [run for run in replica if run.left_s <= 0]:
                replica.remove(run)
                self.fleet.leave(run.job.current_attempt)
                self.ends[run.job.id] = self.now + 5.0
                ended = True
        if ended:
            self.plan()

    def advance(self, run: Run, seconds: float) -> None:
        steps = run.job.request.sampling.num_inference_steps
        before = int(steps * (1 - run.left_s / run.whole_s))
        run.left_s -= seconds
        step = min(steps, int(steps * (1 - run.left_s / run.whole_s)))
        self.fleet.note_step(run.job.current_attempt, step)
        if before < steps // 2 <= step:
            halfway = replace(run.job, stage=Stage.DENOISING, step=step)
            self.foresee("halfway", halfway, None)

    def median_error(self, moment: str) -> float:
        """Of |real - foreseen| / real, in seconds from that moment to the end."""
        return median(
            abs(self.ends[job_id] - at - left_s) / (self.ends[job_id] - at)
            for job_id, at, left_s in self.foreseen[moment]
        )


def mixed_jobs(seed: int) -> Iterator[tuple[float, Job]]:
    """A burst, then arrivals at about what the cluster can do; as (seconds, job)."""
    chance, at = random.Random(seed), 0.0
    shapes: Sequence[tuple[int, int, int]] = [(512, 512, 16), (704, 704, 16), (448, 256, 24)]
    for number in range(150):
        at += 0.0 if number < 30 else chance.expovariate(1 / 25)
        width, height, frames = chance.choice(shapes)
        sampling = replace(
            CLIP,
            width=width,
            height=height,
            num_frames=frames,
            num_inference_steps=chance.choice([20, 30, 50]),
        )
        priority = Priority.BATCH if chance.random() < 0.4 else Priority.INTERACTIVE
        yield (
            at,
            a_job(
                f"job{number}",
                status=JobStatus.QUEUED,
                tier=None,
                attempt=0,
                created_at=1000.0 + at,
                sampling=sampling,
                priority=priority,
            ),
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_a_simulated_cluster_of_two_tiers_the_median_error_is_small(seed: int) -> None:
    cluster = Cluster(a_fleet(fast=2, slow=3), replicas={"fast": [[], []], "slow": [[], [], []]})
    jobs = list(mixed_jobs(seed))
    for at, job in jobs:
        while cluster.now < 1000 + at:
            cluster.tick(0.5)
        cluster.submit(job)
    while len(cluster.ends) < len(jobs):
        cluster.tick(0.5)
    errors = {moment: cluster.median_error(moment) for moment in ("queued", "leased", "halfway")}
    assert errors["queued"] < 0.3
    assert errors["leased"] < 0.35  # who comes later, with priority, is not foreseen
    assert errors["halfway"] < 0.25


def test_the_frames_of_a_camera_move_are_not_taken_for_the_encoding_of_photo_and_prompt() -> None:
    clock, fleet = Clock(), a_fleet(fast=1)
    foresight = Foresight(fleet, clock)
    foresight.resume(Snapshot({}, STAGE_S).to_json())
    tail = replace(CLIP, motion_strength=0.4)
    job = a_job(sampling=tail)
    fleet.enter(job, "fast")
    foresight.begin(job)
    clock.now += STAGE_S[Stage.ENCODING] + STAGE_S[Stage.DECODING] * COST.encode_share(tail)
    foresight.enter(job.current_attempt, Stage.DENOISING)
    assert foresight.snapshot().stage_s == pytest.approx(STAGE_S)


def test_the_error_of_a_prediction_is_measured_at_the_end_of_its_attempt() -> None:
    clock, fleet = Clock(), a_fleet(fast=1)
    foresight = Foresight(fleet, clock)

    def walk(name: str, denoising_s: float) -> float | None:
        job = a_job(name)
        fleet.enter(job, "fast")
        foresight.begin(job)
        predicted_at = foresight.predicted_at(job.current_attempt)
        began = clock.now
        for stage, seconds in {
            Stage.ENCODING: 1.0,
            Stage.WAITING_DENOISER: denoising_s / 2,  # behind somebody: no stage of its own
            Stage.DENOISING: denoising_s / 2,
            Stage.DECODING: 2.0,
            Stage.ENCODING_VIDEO: 2.5,
            Stage.STORING: 0.5,
        }.items():
            foresight.enter(job.current_attempt, stage)
            clock.now += seconds
        foresight.completed(job.current_attempt)
        foresight.forget(job.current_attempt)
        fleet.leave(job.current_attempt)
        return None if predicted_at is None else predicted_at - began

    assert walk("first", OWN_S) is None  # nothing was measured
    assert foresight.snapshot().stage_s == STAGE_S
    assert foresight.snapshot().median_error is None
    assert walk("second", OWN_S) == pytest.approx(OWN_S + 6)
    assert foresight.snapshot().median_error == pytest.approx(0)
    walk("third", 2 * OWN_S)
    walk("fourth", 2 * OWN_S)
    assert foresight.snapshot().median_error == pytest.approx(OWN_S / (2 * OWN_S + 6))


def test_a_rendered_clip_has_its_rendering_and_the_file_before_it() -> None:
    """Nothing else on its way needs to have been measured."""
    camera = CameraTierConfig()
    cost = CostModel(ARCHITECTURE, [*TIERS, camera], ModelConfig(source="i2vgen-xl"), {})
    clip = replace(CLIP, num_inference_steps=0, num_frames=48)
    own_s = cost.seconds(clip, "camera")
    state = a_tier(slots=2, tflops=camera.tflops)
    behind = {Stage.ENCODING_VIDEO: 3.0, Stage.STORING: 1.0}
    snapshot = Snapshot({"fast": a_tier(), "camera": state}, behind)
    queued = a_job(sampling=clip, status=JobStatus.QUEUED, tier=None, attempt=0)
    assert eta_s(queued, snapshot, cost, 0, 0.0) == pytest.approx(own_s + 4)
    busy = replace(snapshot, tiers={"camera": a_tier(Work(1, own_s), slots=2)})
    running = a_job(sampling=clip, tier="camera", stage=Stage.RENDERING)
    assert eta_s(running, busy, cost, None, 0.0) == pytest.approx(own_s + 4)
    encoding = a_job(sampling=clip, tier="camera", stage=Stage.ENCODING_VIDEO)
    assert eta_s(encoding, snapshot, cost, None, 0.0) == pytest.approx(4)
    storing = a_job(sampling=clip, tier="camera", stage=Stage.STORING)
    assert eta_s(storing, snapshot, cost, None, 0.0) == pytest.approx(1)
