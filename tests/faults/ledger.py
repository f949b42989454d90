"""The truth about accepted jobs, read from the job table and the bucket alone."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

from storage import keys
from storage.errors import ObjectNotFound
from storage.job_contract import JobStore
from storage.jobs import Job, JobStatus, VideoFile
from storage.object_store import ObjectStore


class Account(NamedTuple):
    """Empty lists: every accepted job has one end, and who completed has one video. A line says
    which job and what is wrong with it."""

    lost: list[str]
    duplicates: list[str]


def account(jobs: JobStore, objects: ObjectStore, job_ids: Collection[str]) -> Account:
    """Call it when the jobs have had time to end.

    Lost: the row is missing or has no end, or it is completed and its commit, or the very bytes
    that this names, are not there. Duplicate: the row shows other files than its commit does, or
    more than one commit names files that the job made.
    """
    rows = {job.id: job for job in jobs.get_many(set(job_ids))}
    made = _commits_by_job(objects, {job.request.tenant for job in rows.values()})
    lost = [f"{job_id}: no row" for job_id in set(job_ids) - set(rows)]
    duplicates = []
    for job in rows.values():
        if not job.status.is_terminal:
            lost.append(f"{job.id}: still {job.status}")
        elif job.status is JobStatus.COMPLETED:
            commit, problem = _read(objects, job)
            if problem:
                lost.append(f"{job.id}: {problem}")
            if commit is not None and job.result is not None and commit != job.result.video_key:
                duplicates.append(f"{job.id}: shows {job.result.video_key}, committed is {commit}")
        if len(made[job.id]) > 1:
            duplicates.append(f"{job.id}: made {', '.join(made[job.id])}")
    return Account(lost, duplicates)


def _read(objects: ObjectStore, job: Job) -> tuple[str | None, str]:
    """The video's key as committed, and what keeps it from being read ("": nothing)."""
    key = keys.result_key(job.request.tenant, job.request.result_id)
    try:
        commit = VideoFile.from_json(objects.get(key))
    except ObjectNotFound:
        return None, f"no commit at {key}"
    try:
        video = objects.get(commit.video_key)
    except ObjectNotFound:
        return commit.video_key, f"no video at {commit.video_key}"
    if hashlib.sha256(video).hexdigest() != commit.sha256:
        return commit.video_key, f"other bytes than committed at {commit.video_key}"
    return commit.video_key, ""


def _commits_by_job(objects: ObjectStore, tenants: Collection[str]) -> Mapping[str, list[str]]:
    """Job id -> keys of the commits that name files of one of its attempts."""
    made = defaultdict(list)
    for tenant in tenants:
        for found in objects.iter_objects(f"results/{tenant}/"):
            made[VideoFile.from_json(objects.get(found.key)).made_by].append(found.key)
    return made
