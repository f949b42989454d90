"""What can go wrong with a run as a whole; what goes wrong with one row becomes its result.

RunError
├── TryLater         retryable: too much at once, or nobody answers for now
├── Refused          the service will not make this video
│   └── VideoLost    retryable: it was deleted or has expired before the run had its files
├── PhotoUnusable    the row's photo cannot be had
├── NotAllowed       the service does not take the run's key: no row will fare better
├── ServiceAway      nobody has answered for longer than the run waits; continue it later
├── PlanChanged      the folder holds another run, or this one was begun with other options
├── RunCancelled     somebody cancelled the run
└── TooManyFailures  more rows failed than `max_failures` allows; continue it with a higher one
"""


class RunError(Exception):
    retryable = False


class TryLater(RunError):
    retryable = True

    def __init__(self, reason: str, after_s: float, away_s: float = 0.0):
        super().__init__(reason, after_s, away_s)
        self.reason, self.after_s = reason, after_s  # at least that long
        self.away_s = away_s  # for how long it has answered nobody; 0: it has answered this

    def __str__(self) -> str:
        return self.reason


class Refused(RunError):
    def __init__(self, type_: str, code: str, message: str):
        super().__init__(type_, code, message)
        self.type, self.code, self.message = type_, code, message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class VideoLost(Refused):
    retryable = True


class PhotoUnusable(RunError):
    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return self.message


class NotAllowed(RunError):
    pass


class ServiceAway(RunError):
    def __init__(self, seconds: float, reason: str):
        super().__init__(seconds, reason)
        self.seconds, self.reason = seconds, reason

    def __str__(self) -> str:
        return (
            f"the service has not answered for {self.seconds:.0f} s ({self.reason});"
            " the same command continues the run"
        )


class PlanChanged(RunError):
    def __init__(self, output_uri: str, reason: str):
        super().__init__(output_uri, reason)
        self.output_uri, self.reason = output_uri, reason

    def __str__(self) -> str:
        return (
            f"{self.output_uri} holds a run that was begun differently: {self.reason}."
            " Ask as then to continue it, or give another --output"
        )


class RunCancelled(RunError):
    def __str__(self) -> str:
        return "cancelled; the same command continues the run"


class TooManyFailures(RunError):
    def __init__(self, failed: int, allowed: int):
        super().__init__(failed, allowed)
        self.failed, self.allowed = failed, allowed

    def __str__(self) -> str:
        return (
            f"{self.failed} rows failed, {self.allowed} may (--max-failures);"
            " the same command with a higher limit continues the run"
        )
