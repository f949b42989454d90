"""Garbage in the bucket: walks over its folders that delete what nobody needs any more.

Ages are told by the store's own clock. Whether somebody needs an object is asked of the job table
after the object was listed, a page at a time; an object without a row is garbage once it is older
than the grace period and younger than the table: a table that was lost has no rows either.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from storage import keys
from storage.errors import ObjectNotFound
from storage.jobs import JobRequest, VideoFile
from storage.lifecycle import forgetting
from storage.lifecycle.forgetting import Address
from storage.lifecycle.pages import delete_page, pages
from storage.lifecycle.retention import Retention, Tally
from storage.object_store import ObjectInfo, ObjectStore
from storage.sql.database import Database
from storage.sql.tables import jobs

_DOOMED_AT_ONCE = 50  # in one transaction, while others wait to write
_OLDER_THAN_TABLE = "older than the job table: `shopreel jobs rebuild` tells whose they are"
_UNTOLD = "attempts that do not say what they were made for"
_DAMAGED = "results that cannot be read"


@dataclass(frozen=True, slots=True)
class Orphans:
    database: Database
    objects: ObjectStore
    pool: Executor
    retention: Retention
    now: float  # Unix seconds, by the clock of the job table
    store_now: float  # the same moment by the store's clock
    complete_since: float  # a job of after this time that has no row was deleted
    tally: Tally

    def collect_results(self) -> None:
        """Commits that no job refers to are noted as purges, so that nobody refers to them anew
        while they go."""
        for page in self._pages("results/", 3):
            addresses = {_address(info.key.removesuffix(".json")): info for info in page}
            with self.database.reading() as db:
                needed = forgetting.referenced(db, addresses.keys())
            unneeded = [info for address, info in addresses.items() if address not in needed]
            doomed = list(self._of_deleted(unneeded))
            for some in pages(doomed, _DOOMED_AT_ONCE):
                self._doom([_address(info.key.removesuffix(".json")) for info in some])

    def collect_records(self) -> None:
        """What is said in jobs/ of jobs that were deleted."""
        for page in self._pages("jobs/", 3):
            rows = self._rows(page)
            without = [info for info in page if _job_id(info.key) not in rows]
            self._delete("job records", self._of_deleted(without))

    def collect_checkpoints(self) -> None:
        for page in self._pages("checkpoints/", 3):
            old = self._ended_or_gone(page, self._rows(page), self.retention.checkpoints_s)
            self._delete("checkpoints", old)

    def collect_attempts(self) -> None:
        """Files of tries that no commit names."""
        for page in self._pages("attempts/", 4):
            rows = self._rows(page)
            old = self._ended_or_gone(page, rows, self.retention.attempts_s)
            folders = {_folder(info.key) for info in old}
            makers = [rows.get(_job_id(folder)) for folder in folders]
            verdicts = self.pool.map(self._is_garbage, folders, makers)
            garbage = dict(zip(folders, verdicts, strict=True))
            self.tally.left[_UNTOLD] += sum(verdict is None for verdict in garbage.values())
            self._delete("attempts", (info for info in old if garbage[_folder(info.key)]))

    def collect_inputs(self) -> None:
        """Photos: those that jobs and files have in common go with the last of them."""
        keep_s = self.retention.inputs_s
        if keep_s is None:
            return
        oldest = max(keep_s, self.retention.grace_s)
        for page in self._pages("inputs/", 3, oldest):
            addresses = {_address(info.key): info for info in page}
            with self.database.reading() as db:
                used = forgetting.used_photos(db, addresses.keys(), self.now - keep_s)
                unused = addresses.keys() - used
                known = forgetting.known_photos(db, unused)
            unknown = self._of_deleted(addresses[address] for address in unused - known)
            doomed = [*(addresses[address] for address in known), *unknown]
            gone = self.pool.map(lambda info: self._delete_older(info.key, oldest), doomed)
            for info, is_gone in zip(doomed, gone, strict=True):
                self.tally.deleted["inputs"] += is_gone
                self.tally.bytes_freed += info.size_bytes * is_gone

    def collect_probes(self) -> None:
        """Left by a start-up check, or a collection, that was killed."""
        for page in self._pages("_probe/", 2):
            self._delete("probes", page)

    def _doom(self, addresses: list[Address]) -> None:
        makers = {}
        for address, data in zip(addresses, self.pool.map(self._read, addresses), strict=True):
            try:
                if data is not None:
                    makers[address] = VideoFile.from_json(data).made_by
            except (ValueError, TypeError):
                self.tally.left[_DAMAGED] += 1
        with self.database.writing() as db:
            named = jobs.c.id.in_(set(makers.values()))
            found = db.execute(select(jobs.c.id, jobs.c.status).where(named))
            # Those have committed, and are still to be told so.
            at_work = {row.id for row in found if not row.status.is_terminal}
            for address, maker in sorted(makers.items()):  # each is held: in order
                if maker not in at_work:
                    noted = forgetting.doom_result(db, address, maker, self.now)
                    self.tally.deleted["results"] += noted

    def _read(self, commit: Address) -> bytes | None:
        try:
            return self.objects.get(keys.result_key(*commit))
        except ObjectNotFound:
            return None

    def _ended_or_gone(
        self, page: list[ObjectInfo], rows: Mapping[str, Row[Any]], keep_s: float | None
    ) -> list[ObjectInfo]:
        """Those of jobs that ended so long ago, and those of deleted jobs."""
        without = [info for info in page if _job_id(info.key) not in rows]
        old = list(self._of_deleted(without))
        for info in page:
            row = rows.get(_job_id(info.key))
            if keep_s is None or row is None or not row.status.is_terminal:
                continue
            ended_s = self.now - row.completed_at
            if min(ended_s, self._age(info)) > keep_s:
                old.append(info)
        return old

    def _is_garbage(self, folder: str, row: Row[Any] | None) -> bool | None:
        """Whether no commit names the files of this try; None: there is no telling. They may belong
        to the result of other jobs, even where their own was deleted before they were committed."""
        if row is not None and row.result_id is not None:
            named = VideoFile.from_json(row.result.encode()).video_key
            if named.startswith(folder):
                return False
        try:
            manifest = json.loads(self.objects.get(f"{folder}manifest.json"))
        except ObjectNotFound:
            return True  # it died before it had all files: nothing to commit
        except ValueError:
            return None
        if "result_id" in manifest:
            address = manifest["tenant"], manifest["result_id"]
        elif row is not None:
            address = row.tenant, JobRequest.from_json(row.request.encode()).result_id
        else:
            return None
        try:
            commit = VideoFile.from_json(self.objects.get(keys.result_key(*address)))
        except ObjectNotFound:
            return True
        except (ValueError, TypeError):
            return None
        return not commit.video_key.startswith(folder)

    def _of_deleted(self, without_row: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """Less those that may be of jobs whose rows were lost. The grace period allows for the two
        clocks going differently."""
        for info in without_row:
            if info.modified_at - self.retention.grace_s > self.complete_since:
                yield info
            else:
                self.tally.left[_OLDER_THAN_TABLE] += 1

    def _rows(self, page: Iterable[ObjectInfo]) -> dict[str, Row[Any]]:
        query = select(jobs).where(jobs.c.id.in_({_job_id(info.key) for info in page}))
        with self.database.reading() as db:
            return {row.id: row for row in db.execute(query)}

    def _delete(self, kind: str, doomed: Iterable[ObjectInfo]) -> None:
        doomed = list(doomed)
        delete_page(self.objects, self.pool, (info.key for info in doomed))
        self.tally.deleted[kind] += len(doomed)
        self.tally.bytes_freed += sum(info.size_bytes for info in doomed)

    def _delete_older(self, key: str, age_s: float) -> bool:
        """Unless it was uploaded again since it was listed: its row may be still to come. What
        remains open is the way from that answer to the deletion."""
        info = self.objects.stat(key)
        if info is None or self._age(info) <= age_s:
            return False
        self.objects.delete(key)
        return True

    def _age(self, info: ObjectInfo) -> float:
        return self.store_now - info.modified_at

    def _pages(
        self, prefix: str, depth: int, older_s: float | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """Past the grace period, or so old. What has another depth is nobody's of us."""
        age_s = self.retention.grace_s if older_s is None else older_s
        return pages(
            info
            for info in self.objects.iter_objects(prefix)
            if self._age(info) > age_s and info.key.count("/") == depth - 1
        )


def _job_id(key: str) -> str:
    return key.split("/")[1]


def _folder(key: str) -> str:
    return key.rpartition("/")[0] + "/"


def _address(key: str) -> Address:
    _, tenant, what = key.split("/")
    return tenant, what
