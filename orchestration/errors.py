"""The errors of the `orchestration` package. Each class says whose problem it is."""

from __future__ import annotations

from concurrent.futures import CancelledError
from typing import Any

from runners import errors as _runners


class MillraceError(Exception):
    """Base of this package's errors."""


class UserError(MillraceError, _runners.UserError):
    """Something in the flow, its arguments or its settings has to change."""


class BackendError(MillraceError, _runners.BackendError):
    """A store or cluster has failed."""


class InternalError(MillraceError, _runners.InternalError):
    """A defect of Millrace. Please report it."""


# --- flows and tasks


class ParameterError(UserError):
    """A flow or task was called with parameters that do not fit its signature or types."""


class MappingError(UserError):
    """`map` was given iterables of unequal length, or nothing to map over."""


class FlowNotFoundError(UserError):
    """An entry point names no file, module or flow."""


class DependencyError(UserError):
    """A task run would wait for itself, or for a future of another run."""


class UpstreamFailedError(MillraceError):
    """The result of a task run was asked for that never ran, because of what came before it.

    `__cause__` is the exception at the root of it, also where this error has travelled to a worker: an ordinary
    exception loses its cause when it is pickled.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        from runners.codec import dump_exception

        cause = None if self.__cause__ is None else dump_exception(self.__cause__)
        return _with_cause, (type(self), self.args, cause)


def _with_cause(kind: type[UpstreamFailedError], args: tuple[Any, ...], cause: bytes | None) -> BaseException:
    from runners.codec import loads

    error = kind(*args)
    error.__cause__ = None if cause is None else loads(cause)
    return error


class CancelledRunError(MillraceError, CancelledError):
    """The result of a cancelled task run or flow run was asked for. It is one of `concurrent.futures`, too."""


class CrashedRunError(MillraceError):
    """The result of a task run was asked for that was lost with its worker for good."""


class FlowRunFailedError(MillraceError):
    """Task runs that the flow returned have failed with nothing that could be raised again.

    `__cause__` is what the first of them raised: a SystemExit, a KeyboardInterrupt and the like.
    """


class FlowTimeoutError(TimeoutError):
    """A flow run took longer than its `timeout_seconds`."""


# --- runs


class RunNotFoundError(UserError):
    """No run has this id or name."""


class RunAliveError(UserError):
    """A run cannot be resumed while its process is alive."""


class RunNotResumableError(UserError):
    """A run lacks what resuming needs, or has completed."""


class FencedError(BackendError):
    """Another process has taken over this run."""


# --- stores


class StoreError(BackendError):
    """The store cannot be used. The message names the file or address, the cause and the cure."""


class StoreFullError(StoreError):
    """No space is left where the store is."""


class StoreLockedError(StoreError):
    """Another process has held the store's lock for too long."""


class StoreUnreachableError(StoreError):
    """The store's server does not answer."""


class StoreRefusedError(StoreError):
    """The store's server does not let this process in, or not do this."""


class StoreReadOnlyError(StoreError):
    """The store cannot be written."""


class StoreCorruptError(StoreError):
    """The store's file is damaged, or is no store."""


class StoreNewerError(StoreError):
    """The store was written by a newer version of Millrace."""
