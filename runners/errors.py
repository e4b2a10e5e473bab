"""The errors of the `runners` package, and the signals that user code raises to steer its task run.

Each error class says whose problem it is: the flow's author, the backend's operator, or ours.
"""

from __future__ import annotations


class RunnersError(Exception):
    """Base of this package's errors."""


class UserError(RunnersError):
    """Something in the flow, its arguments or its settings has to change."""


class BackendError(RunnersError):
    """A cluster, worker or storage has failed."""


class InternalError(RunnersError):
    """A defect of Millrace. Please report it."""


class MissingExtraError(UserError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'millrace[{extra}]'")


class SerializationError(UserError):
    """A value cannot be pickled, so it cannot travel between processes."""


class RunnerOptionError(UserError):
    """A runner was given options that it cannot honour."""


class RunnerNotStartedError(UserError):
    """A runner was used before `start` or after `close`."""


class ResultLostError(BackendError):
    """The engine no longer holds a result."""


class StorageError(BackendError):
    """Result storage cannot be read or written."""


class ResultFileLostError(StorageError):
    """A result file is gone, or is not what was written: its results have to be made again.

    Attributes:
        reason: what is wrong with the file, without the cure.
    """

    def __init__(self, reason: str, cure: str) -> None:
        self.reason = reason
        self.cure = cure
        super().__init__(f"{reason}. {cure}")

    def __reduce__(self) -> tuple[type[ResultFileLostError], tuple[str, str]]:
        return type(self), (self.reason, self.cure)


class ConnectionFailedError(BackendError):
    """A cluster cannot be reached."""


class VersionMismatchError(BackendError):
    """A worker runs another version of Millrace than the flow's process."""


class RemoteTraceback(Exception):
    """The traceback of user code on a worker, as the `__cause__` of the exception that it raised."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\n{self.text.rstrip()}"


class TaskRunError(RunnersError):
    """Stands in for an exception of user code that cannot be unpickled here.

    Attributes:
        type_name: qualified name of the original exception type.
    """

    def __init__(self, message: str, type_name: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name

    def __reduce__(self) -> tuple[type[TaskRunError], tuple[str, str]]:
        return type(self), (str(self), self.type_name)


class TaskTimeoutError(TimeoutError):
    """A task run took longer than its `timeout_seconds`."""


class TaskCancelledError(Exception):
    """A task run was stopped on request."""


class Signal(Exception):
    """Base of the exceptions by which user code decides the state of its own task run."""


class Skip(Signal):
    """Skip this task run and, by default, what follows from it. Counts as success."""


class Fail(Signal):
    """Fail this task run without retries."""


class Retry(Signal):
    """Run this task run again, whatever `retry_condition_fn` says, as long as retries are left.

    Args:
        message: shown in the record.
        after_seconds: delay; None takes the task's own `retry_delay_seconds`.
    """

    def __init__(self, message: str | float = "", after_seconds: float | None = None) -> None:
        if isinstance(message, int | float):  # Retry(5) reads as Retry(after_seconds=5)
            message, after_seconds = "", float(message)
        super().__init__(message)
        self.after_seconds = after_seconds

    def __reduce__(self) -> tuple[type[Retry], tuple[str, float | None]]:
        return type(self), (str(self), self.after_seconds)
