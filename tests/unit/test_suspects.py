"""A job that ends its workers is found out without taking others along."""

from deployments.dispatch.suspects import Suspects
from storage.jobs import Job, JobStatus
from tests.sample_jobs import make_request


def jobs(*ids: str) -> list[Job]:
    return [
        Job(request=make_request(job_id), status=JobStatus.QUEUED, created_at=0.0) for job_id in ids
    ]


def ids(found: list[Job]) -> list[str]:
    return [job.id for job in found]


def test_who_gets_further_each_time_is_no_suspect() -> None:
    suspects = Suspects()
    assert not suspects.lost("long", 10)
    assert not suspects.lost("long", 20)
    assert suspects.lost("long", 20)
    assert not suspects.lost("long", 21)
    assert ids(suspects.without(jobs("long", "a"), jobs("b"))) == ["long", "a"]


def test_one_suspect_runs_at_a_time_and_the_least_suspect_first() -> None:
    suspects = Suspects()
    assert suspects.lost("poison", 0)
    assert suspects.lost("poison", 0)
    assert suspects.lost("neighbour", 0)
    waiting = jobs("poison", "a", "neighbour", "b")
    assert ids(suspects.without(waiting, [])) == ["a", "neighbour", "b"]
    assert ids(suspects.without(waiting, jobs("neighbour"))) == ["a", "b"]
    suspects.forget("neighbour")
    assert ids(suspects.without(waiting, [])) == ["poison", "a", "neighbour", "b"]
