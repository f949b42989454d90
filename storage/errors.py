"""What can go wrong in the stores.

StorageError
├── ObjectNotFound       no object under this key
├── StoreMisconfigured   bucket missing, keys refused, no conditional PUT: an operator must act
├── RecordDamaged        an object that should tell of a job does not: an operator must look
├── ResultDamaged        what should be a committed result is none: an operator must look
├── WrongBucket          it is not the one that the job table was lost or saved with
├── StoreUnavailable     no answer in time, or a 5xx: retry later (the only retryable one)
├── JobNotFound          no such job for this tenant
├── IdempotencyConflict  the key was used for another request
├── QueueFull            as many jobs wait as may: come back later
├── QuotaExceeded        the tenant has used up what it may
├── ResultPurged         the result is being deleted at this moment: make it anew
├── UnknownKey           no such API key, or it was revoked
├── TenantNotFound       no such tenant
├── FileNotFound         no such uploaded file for this tenant
├── BatchNotFound        no such batch for this tenant
├── OutputTaken          an unfinished batch writes there
├── IllegalTransition    the job is in a state that forbids this
├── StaleAttempt         another attempt owns the job now: drop your work
└── StaleDispatcher      a newer Dispatcher has started: stop leasing

Constructors take positional arguments only: keyword-only ones lose their type over a Ray handle.
"""


class StorageError(Exception):
    """Root of what the stores raise. `retryable` says whether the same call may succeed later."""

    retryable = False


class ObjectNotFound(StorageError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no object under key {self.key!r}"


class StoreMisconfigured(StorageError):
    """The message says what is wrong and how to mend it."""


class RecordDamaged(StorageError):
    def __init__(self, key: str, why: str) -> None:
        super().__init__(key, why)
        self.key, self.why = key, why

    def __str__(self) -> str:
        return f"{self.key} cannot be read: {self.why}"


class ResultDamaged(StorageError, ValueError):
    """The message says what is wrong with it. A ValueError too, as any text that does not parse."""


class WrongBucket(StorageError):
    """The message says what was found in it."""


class StoreUnavailable(StorageError):
    retryable = True


class JobNotFound(StorageError):
    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no video {self.job_id!r}"


class IdempotencyConflict(StorageError):
    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key, self.job_id = key, job_id

    def __str__(self) -> str:
        return f"idempotency key {self.key!r} was used for another request, {self.job_id}"


class IllegalTransition(StorageError):
    def __init__(self, job_id: str, current: str, target: str) -> None:
        super().__init__(job_id, current, target)
        self.job_id, self.current, self.target = job_id, current, target

    def __str__(self) -> str:
        return f"video {self.job_id} is {self.current} and cannot become {self.target}"


class StaleAttempt(StorageError):
    def __init__(self, job_id: str, number: int, epoch: int) -> None:
        super().__init__(job_id, number, epoch)
        self.job_id, self.number, self.epoch = job_id, number, epoch

    def __str__(self) -> str:
        return (
            f"attempt {self.number} (epoch {self.epoch}) of video {self.job_id} no longer owns it"
        )


class StaleDispatcher(StorageError):
    def __init__(self, epoch: int, newest: int) -> None:
        super().__init__(epoch, newest)
        self.epoch, self.newest = epoch, newest

    def __str__(self) -> str:
        return f"dispatcher epoch {self.epoch} is superseded by {self.newest}"


class QueueFull(StorageError):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} jobs wait already, as many as this server takes; try again later"


class QuotaExceeded(StorageError):
    """`quota` is the name of a field of storage.tenants.Quota."""

    def __init__(self, quota: str, limit: int, retry_after_s: int) -> None:
        super().__init__(quota, limit, retry_after_s)
        self.quota, self.limit, self.retry_after_s = quota, limit, retry_after_s

    def __str__(self) -> str:
        words = self.quota.replace("_", " ")
        return f"your quota is used up ({words}: {self.limit}); try again later"


class ResultPurged(StorageError):
    retryable = True

    def __init__(self, result_id: str) -> None:
        super().__init__(result_id)
        self.result_id = result_id

    def __str__(self) -> str:
        return f"result {self.result_id} is being deleted"


class UnknownKey(StorageError):
    def __str__(self) -> str:
        return "this API key is not known, or was revoked"


class TenantNotFound(StorageError):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"no tenant {self.name!r}"


class FileNotFound(StorageError):
    def __init__(self, file_id: str) -> None:
        super().__init__(file_id)
        self.file_id = file_id

    def __str__(self) -> str:
        return f"no file {self.file_id!r}"


class BatchNotFound(StorageError):
    def __init__(self, batch_id: str) -> None:
        super().__init__(batch_id)
        self.batch_id = batch_id

    def __str__(self) -> str:
        return f"no batch {self.batch_id!r}"


class OutputTaken(StorageError):
    def __init__(self, output_uri: str) -> None:
        super().__init__(output_uri)
        self.output_uri = output_uri

    def __str__(self) -> str:
        return f"an unfinished batch writes to {self.output_uri}"
