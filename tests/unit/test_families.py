"""A job of several candidates on both databases: it is at every moment what its candidates are."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage.deliveries import SqlDeliveries
from storage.errors import IllegalTransition, JobNotFound, QueueFull, QuotaExceeded, StaleAttempt
from storage.job_contract import Caps, Idempotency, Progress
from storage.job_store import SqlJobStore
from storage.jobs import (
    SEEDS,
    Attempt,
    Feedback,
    Job,
    JobRequest,
    JobStatus,
    Select,
    Stage,
    VideoFile,
)
from storage.lifecycle import forgetting
from tests.sample_jobs import LEASE_S, MAX_ATTEMPTS, VIDEO, Clock, lease_next, make_request
from video.quality import Quality

HOOK = "https://shop.example/hook"


def family(
    job_id: str = "p", candidates: int = 3, select: Select = "best", seed: int = 1
) -> JobRequest:
    request = make_request(job_id, sku="W-1")
    sampling = replace(request.sampling, seed=seed)
    return replace(request, candidates=candidates, select=select, sampling=sampling, webhook=HOOK)


def video_of(request: JobRequest, score: float | None = None) -> VideoFile:
    quality = Quality(score=score, flicker=0.0, warp_error=0.0, tracked=1.0, motion=0.01)
    return replace(VIDEO, result_id=request.result_id, quality=quality)


def lease_all(store: SqlJobStore, epoch: int) -> list[Job]:
    return lease_next(store, epoch, 100)


def run(store: SqlJobStore, request: JobRequest, scores: Sequence[float | None]) -> Job:
    """The job's end, where its candidates get these scores."""
    store.create(request)
    for job, score in zip(lease_all(store, store.next_epoch()), scores, strict=True):
        store.complete(job.current_attempt, video_of(job.request, score))
    return store.get("shop", request.id)


def statuses(job: Job) -> list[str]:
    return [child.status.value for child in job.children]


# --- creation


def test_a_candidate_is_an_ordinary_job_with_the_next_seed(store: SqlJobStore) -> None:
    request = replace(family(seed=SEEDS - 2), deadline_at=5_000.0, batch_id="b-1")
    job = store.create(request)
    assert (job.status, job.request, statuses(job)) == ("queued", request, 3 * ["queued"])
    parts = [child.request for child in job.children]
    assert [part.id for part in parts] == ["p_c0", "p_c1", "p_c2"]
    assert [part.sampling.seed for part in parts] == [SEEDS - 2, SEEDS - 1, 0]
    assert {part.deadline_at for part in parts} == {5_000.0}
    assert {(part.sku, part.webhook, part.candidates) for part in parts} == {(None, None, 1)}
    alone = replace(request, id="x", candidates=1)
    assert parts[0].result_id == alone.result_id  # one clip is one result, whoever asked for it


def test_only_candidates_are_leased_and_counted(store: SqlJobStore) -> None:
    store.create(family())
    store.create(make_request("other"))
    assert (store.queued(), store.counts()[JobStatus.QUEUED]) == (4, 4)
    assert store.queue_position("p") is None
    assert [store.queue_position(f"p_c{k}") for k in range(3)] == [0, 1, 2]
    assert store.queue_position("other") == 3
    leased = lease_all(store, store.next_epoch())
    assert [job.id for job in leased] == ["p_c0", "p_c1", "p_c2", "other"]
    assert {job.parent_id for job in leased} == {"p", None}
    assert store.lease(store.next_epoch(), {"p": "cpu"}) == []


def test_callers_see_no_candidate(store: SqlJobStore) -> None:
    store.create(family())
    store.create(make_request("other"))
    assert [job.id for job in store.list_jobs("shop", limit=10)] == ["other", "p"]
    assert len(store.list_jobs("shop", limit=10, order="asc")[0].children) == 3
    for call in (store.get, store.cancel, store.delete):
        with pytest.raises(JobNotFound):
            call("shop", "p_c0")
    with pytest.raises(JobNotFound):
        store.rate("shop", "p_c0", Feedback(1))
    with pytest.raises(JobNotFound):
        store.list_jobs("shop", limit=10, after="p_c0")
    with pytest.raises(JobNotFound):
        store.retry("p_c0")


def test_many_creations_under_one_key_make_one_family(store: SqlJobStore) -> None:
    key = Idempotency("key", "body")
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: store.create(family(f"p{n}"), key), range(50)))
    assert len({job.id for job in made}) == 1
    assert {len(job.children) for job in made} == {3}
    assert store.queued() == 3
    assert store.find("shop", key) == made[0]


@pytest.mark.parametrize(
    ("caps", "refused"),
    [
        (Caps(queued=3), QueueFull),
        (Caps(tenant_queued=3), QuotaExceeded),
        (Caps(tenant_unfinished=3), QuotaExceeded),
    ],
)
def test_caps_count_candidates(store: SqlJobStore, caps: Caps, refused: type[Exception]) -> None:
    with pytest.raises(refused):
        store.create(family("too-many", 4), caps=caps)
    store.create(make_request("one"), caps=caps)
    with pytest.raises(refused):
        store.create(family(), caps=caps)
    store.create(family("two", 2), caps=caps)
    with pytest.raises(refused):
        store.create(make_request("last"), caps=caps)


def test_the_rate_of_creations_counts_a_family_once(store: SqlJobStore) -> None:
    caps = Caps(tenant_creates_per_minute=2)
    store.create(family("a", 8), caps=caps)
    store.create(family("b", 8), caps=caps)
    with pytest.raises(QuotaExceeded, match="creates per minute"):
        store.create(make_request("c"), caps=caps)


def test_candidates_whose_results_stand_cost_nothing(store: SqlJobStore) -> None:
    some = family("some")
    first = video_of(some.parts[0], 0.5)
    job = store.create(some, results=[first, None, None])
    assert (job.status, statuses(job)) == ("in_progress", ["completed", "queued", "queued"])
    every = family("every", 2)
    found = [video_of(part, score) for part, score in zip(every.parts, (0.1, 0.2), strict=True)]
    job = store.create(every, caps=Caps(queued=1), results=found)
    assert (job.status, job.chosen, job.attempt) == ("completed", 1, 0)
    assert [sent.job_id for sent in SqlDeliveries(store.database).of_job("every")] == ["every"]


# --- on the way


def test_the_whole_goes_on_with_its_candidates(store: SqlJobStore, clock: Clock) -> None:
    store.create(family())
    epoch = store.next_epoch()
    seen = [store.get("shop", "p").rev]

    def told() -> tuple[str, Stage | None, int, int]:
        job = store.get("shop", "p")
        assert job.rev > seen[-1]  # who watches hears of it
        seen.append(job.rev)
        return job.status, job.stage, job.step, job.attempt

    (first,) = store.lease(epoch, {"p_c1": "cpu"})
    assert told() == ("in_progress", None, 0, 1)
    assert store.get("shop", "p").started_at == clock.now
    store.record_progress([Progress(first.current_attempt, Stage.DENOISING, 3)], epoch)
    assert told() == ("in_progress", Stage.DENOISING, 3, 1)
    (second,) = store.lease(epoch, {"p_c0": "gpu"})
    assert told() == ("in_progress", Stage.DENOISING, 3, 1)
    store.record_progress([Progress(second.current_attempt, Stage.ENCODING, 0)], epoch)
    assert store.get("shop", "p").rev == seen[-1]  # nothing that it says is new
    store.release(first.current_attempt, "worker_lost", charge=False)
    assert told() == ("in_progress", Stage.ENCODING, 0, 1)
    store.release(second.current_attempt, "worker_lost", charge=False)
    assert told() == ("queued", None, 0, 1)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((0.2, 0.9, 0.5), 1),
        ((0.7, 0.7, 0.7), 0),
        ((None, 0.1, None), 1),
        ((None, None, None), 0),
        ((0.0, None, 0.3), 2),
    ],
)
def test_the_best_by_score_is_the_result(
    store: SqlJobStore, scores: Sequence[float | None], chosen: int
) -> None:
    job = run(store, family(), scores)
    assert (job.status, job.chosen) == ("completed", chosen)
    assert job.result == job.children[chosen].result
    assert [child.expired for child in job.children] == [k != chosen for k in range(3)]
    released = {purge.result_id for purge in store.purges(10)}
    assert released == {c.request.result_id for c in job.children} - {
        job.children[chosen].request.result_id
    }
    assert [sent.job_id for sent in SqlDeliveries(store.database).of_job("p")] == ["p"]


def test_all_candidates_are_kept_on_request(store: SqlJobStore) -> None:
    job = run(store, family(select="all"), (0.2, 0.9, 0.5))
    assert (job.chosen, store.purges(10)) == (1, [])
    assert not any(child.expired for child in job.children)


def test_the_result_of_a_loser_stays_for_another_job_that_refers_to_it(
    store: SqlJobStore,
) -> None:
    request = family(candidates=2)
    same = replace(request.parts[0], id="alone")
    store.create(same, results=[video_of(same, 0.1)])
    run(store, request, (0.1, 0.9))
    assert store.purges(10) == []
    assert not store.get("shop", "alone").expired
    assert store.delete("shop", "alone").result_id == same.result_id


def test_what_failed_does_not_spoil_what_was_made(store: SqlJobStore) -> None:
    store.create(family())
    jobs = lease_all(store, store.next_epoch())
    store.fail(jobs[0].current_attempt, "out_of_memory", "too big")
    store.complete(jobs[1].current_attempt, video_of(jobs[1].request, 0.1))
    assert store.get("shop", "p").status is JobStatus.IN_PROGRESS
    store.fail(jobs[2].current_attempt, "internal", "")
    job = store.get("shop", "p")
    assert (job.status, job.chosen, job.error_code) == ("completed", 1, None)
    assert [child.error_code for child in job.children] == ["out_of_memory", None, "internal"]


def test_a_family_whose_candidates_all_failed_fails_like_the_first_and_may_be_retried(
    store: SqlJobStore,
) -> None:
    store.create(replace(family(candidates=2), deadline_at=9_000.0))
    for code, job in zip(
        ("encode_failed", "internal"), lease_all(store, store.next_epoch()), strict=True
    ):
        store.fail(job.current_attempt, code, code)
    failed = store.get("shop", "p")
    assert (failed.status, failed.error_code) == ("failed", "encode_failed")
    again = store.retry("p")
    assert (again.status, again.error_code, statuses(again)) == ("queued", None, 2 * ["queued"])
    assert {part.request.deadline_at for part in (again, *again.children)} == {None}
    for job in lease_all(store, store.next_epoch()):
        store.complete(job.current_attempt, video_of(job.request, 0.5))
    done = store.get("shop", "p")
    assert (done.status, done.attempt, done.chosen) == ("completed", 2, 0)
    with pytest.raises(IllegalTransition):
        store.retry("p")
    kinds = [sent.outcome for sent in SqlDeliveries(store.database).of_job("p")]
    assert len(kinds) == 2  # it failed, and then it did not


def test_a_deadline_ends_what_still_waits(store: SqlJobStore, clock: Clock) -> None:
    store.create(replace(family(), deadline_at=clock.now + 10))
    epoch = store.next_epoch()
    (first,) = store.lease(epoch, {"p_c0": "cpu"})
    clock.now += 20
    assert store.expire(epoch) == ["p_c1", "p_c2"]
    assert store.get("shop", "p").status is JobStatus.IN_PROGRESS
    store.complete(first.current_attempt, video_of(first.request))
    job = store.get("shop", "p")
    assert (job.status, statuses(job)) == ("completed", ["completed", "failed", "failed"])


def test_a_family_that_lost_every_worker_fails(store: SqlJobStore, clock: Clock) -> None:
    store.create(family(candidates=2))
    epoch = store.next_epoch()
    for _ in range(MAX_ATTEMPTS):
        assert len(lease_all(store, epoch)) == 2
        clock.now += LEASE_S + 1
    assert lease_all(store, epoch) == []
    job = store.get("shop", "p")
    assert (job.status, job.error_code, job.completed_at) == ("failed", "worker_lost", clock.now)


# --- its end by the caller's hand


def test_a_cancel_stops_every_candidate(store: SqlJobStore) -> None:
    store.create(family())
    (first,) = store.lease(store.next_epoch(), {"p_c0": "cpu"})
    job = store.cancel("shop", "p")
    assert (job.status, statuses(job)) == ("cancelled", 3 * ["cancelled"])
    assert store.owned([first.current_attempt]) == set()
    with pytest.raises(IllegalTransition):
        store.complete(first.current_attempt, video_of(first.request))
    assert store.cancel("shop", "p") == job
    assert (store.queued(), len(SqlDeliveries(store.database).of_job("p"))) == (0, 1)


def test_a_cancel_keeps_what_was_made(store: SqlJobStore) -> None:
    store.create(family())
    (first,) = store.lease(store.next_epoch(), {"p_c2": "cpu"})
    store.complete(first.current_attempt, video_of(first.request, 0.4))
    job = store.cancel("shop", "p")
    assert (job.status, job.chosen) == ("completed", 2)
    assert statuses(job) == ["cancelled", "cancelled", "completed"]


def test_a_deletion_takes_the_candidates_along(store: SqlJobStore) -> None:
    done = run(store, family("done", select="all"), (0.1, 0.2, 0.3))
    store.create(family("running", seed=50))
    jobs = lease_all(store, store.next_epoch())
    store.delete("shop", "done")
    store.delete("shop", "running")
    with pytest.raises(StaleAttempt):
        store.complete(jobs[0].current_attempt, video_of(jobs[0].request))
    names = [job.id for job in (done, *done.children, *jobs)]
    assert store.get_many([*names, "running"]) == []
    purges = store.purges(20)
    assert {purge.job_id for purge in purges} == {*names, "running"}
    gone = sorted(purge.result_id for purge in purges if purge.result_id)
    assert gone == sorted(part.result_id for part in done.request.parts)  # each once


def test_feedback_names_a_candidate(store: SqlJobStore) -> None:
    run(store, family(), (0.1, 0.2, 0.3))
    given = Feedback(-1, ("warped",), 5.0, 2)
    assert store.rate("shop", "p", given).feedback == given
    assert store.get("shop", "p").feedback == given


# --- retention


def test_candidates_are_forgotten_with_the_whole_and_not_before(
    store: SqlJobStore, clock: Clock
) -> None:
    store.create(family(candidates=2, select="all"))
    early, late = lease_all(store, store.next_epoch())
    store.complete(early.current_attempt, video_of(early.request, 0.9))
    clock.now += 100
    between = clock.now - 1
    store.complete(late.current_attempt, video_of(late.request, 0.1))
    with store.database.writing() as db:
        assert forgetting.forget_ended(db, between, 100, clock.now) == 0
        assert forgetting.expire_results(db, between, 100, clock.now) == 0
    with store.database.writing() as db:
        assert forgetting.forget_ended(db, clock.now + 1, 100, clock.now) == 1
    assert store.get_many(["p", "p_c0", "p_c1"]) == []
    gone = {purge.result_id for purge in store.purges(10)} - {None}
    assert gone == {early.request.result_id, late.request.result_id}


# --- at once


def test_a_family_ends_whoever_writes_at_the_same_time(store: SqlJobStore) -> None:
    """On Postgres its rows are locked by many: nobody may wait for somebody who waits for him."""
    epoch = store.next_epoch()
    for number in range(8):
        store.create(family(f"p{number}", 4, seed=10 * number))
    jobs = lease_all(store, epoch)
    assert len(jobs) == 32
    together = threading.Barrier(4)

    def complete(part: Sequence[Job]) -> None:
        together.wait()
        for job in part:
            try:
                store.complete(job.current_attempt, video_of(job.request, 0.5))
            except (IllegalTransition, StaleAttempt):  # cancelled or deleted: by the other two
                assert job.parent_id in {"p1", "p2"}

    def report() -> None:
        together.wait()
        for step in range(5):
            running = [job.current_attempt for job in jobs]
            store.record_progress([Progress(a, Stage.DENOISING, step) for a in running], epoch)

    def leave() -> None:
        together.wait()
        store.cancel("shop", "p1")
        store.delete("shop", "p2")

    with ThreadPoolExecutor(4) as pool:
        ways = [
            pool.submit(complete, jobs[::2]),
            pool.submit(complete, jobs[1::2]),
            pool.submit(report),
            pool.submit(leave),
        ]
        for way in ways:
            way.result(timeout=60)
    left = {job.id: job for job in store.list_jobs("shop", limit=20)}
    assert left.keys() == {f"p{number}" for number in range(8)} - {"p2"}
    assert all(job.status.is_terminal for job in left.values())
    for number in (0, 3, 4, 5, 6, 7):
        job = left[f"p{number}"]
        assert (job.status, job.chosen) == ("completed", 0)
        assert [child.expired for child in job.children] == [False, True, True, True]
    assert store.owned([Attempt("p1_c0", 1, epoch)]) == set()
