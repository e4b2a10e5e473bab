"""Flows: functions that start task runs, run as a whole with a record."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic, ParamSpec, TypeVar, overload

from runners.base import TaskRunner

from .option_checks import Binds, Hooks, named, settle, unbound

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(eq=False)
class Flow(Generic[P, R]):
    """A function that runs as a flow. Made by `@flow`; see there for the fields."""

    fn: Callable[P, R]
    name: str = ""
    description: str = ""
    version: str = ""
    flow_run_name: str | Callable[..., str] | None = None
    task_runner: TaskRunner | type[TaskRunner] | str | None = None
    retries: int = 0
    retry_delay_seconds: float | Sequence[float] | Callable[[int], float] = 0
    timeout_seconds: float | None = None
    max_concurrent_runs: int | None = None
    validate_parameters: bool = True
    log_prints: bool = False
    persist_results: bool = False
    result_storage: str | None = None
    result_serializer: str | None = None
    store: str | None = None
    on_running: Hooks = field(default_factory=Hooks)
    on_completion: Hooks = field(default_factory=Hooks)
    on_failure: Hooks = field(default_factory=Hooks)
    on_crashed: Hooks = field(default_factory=Hooks)
    on_cancellation: Hooks = field(default_factory=Hooks)
    entrypoint: str = ""  # where `resume` finds it; from the function where not given
    bound: tuple[Any, ...] = ()  # the instance, or the class, for methods
    binds: Binds = "instance"

    def __post_init__(self) -> None:
        settle(self, "flow")
        functools.update_wrapper(self, self.fn, updated=())

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the flow. Returns its result, or raises what it raised; `return_state=True` gives the State.

        `wait_for=[...]` names futures to wait for before it runs, as `submit` of a task does.
        """
        from .engine import run_flow

        options: dict[str, Any] = dict(kwargs)
        takes = inspect.signature(self.fn).parameters
        return_state = "return_state" not in takes and bool(options.pop("return_state", False))
        wait_for = options.pop("wait_for", ()) if "wait_for" not in takes else ()
        return run_flow(self, self.bound + args, options, return_state=return_state, wait_for=wait_for)  # type: ignore[no-any-return]

    def resume(
        self, run_id: str, *, secrets: Mapping[str, Any] | None = None, return_state: bool = False
    ) -> Any:
        """Continue a crashed, failed, cancelled or paused run of this flow.

        Task runs that completed and whose results are in storage are not run again.

        Args:
            run_id: an id, a prefix of one, or a name.
            secrets: parameters that hold secrets, by name: these are never recorded.

        Raises:
            RunNotFoundError, RunAliveError, RunNotResumableError.
        """
        from .engine import resume_flow

        return resume_flow(self, run_id, secrets=secrets, return_state=return_state)

    def with_options(self, **options: Any) -> Flow[P, R]:
        """Return a copy with other options; the fields of `@flow`."""
        return replace(self, **named("flow", options, _OPTIONS))

    def __get__(self, instance: Any, owner: type | None = None) -> Flow[P, R]:
        """Bind a flow that is a method to its instance, or to its class."""
        first = owner if self.binds == "class" else instance
        if first is None or self.bound or self.binds == "nothing":
            return self
        return replace(self, bound=(first,))

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn) or inspect.isasyncgenfunction(self.fn)

    def __repr__(self) -> str:
        return f"<flow {self.name!r}>"


_OPTIONS = frozenset(f.name for f in fields(Flow)) - {"fn", "bound", "binds"}


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(**options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]: ...
def flow(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a flow.

    Args:
        name, description, version: from the function where not given.
        flow_run_name: template with parameters in braces, or callable(parameters) -> str; else like `jumpy-puppy`.
        task_runner: where task runs are executed: an instance or class of `runners`, or its name ("dask");
            default `ThreadPoolTaskRunner()`, or what MILLRACE_RUNNER says.
        retries, retry_delay_seconds: of the whole function, after it raised.
        timeout_seconds: of the whole run; state Failed, name TimedOut.
        max_concurrent_runs: how many runs of flows of this name are at work at once, of all processes on one
            store; the others wait for their turn before their runners start. Runs inside runs are not counted.
        validate_parameters: coerce parameters to their type hints; a bad one is an error before anything runs.
        log_prints: prints become log lines of the run.
        persist_results: results of tasks are written to result storage, so that the run can be resumed.
        result_storage, result_serializer: where (a path or any fsspec URL) and how.
        store: where the run is recorded: a URL, a path, or "memory"; default what MILLRACE_STORE says.
        on_running, on_completion, on_failure, on_crashed, on_cancellation: hooks,
            called as hook(flow, flow_run, state); one that raises does not stop the others.
    """

    def decorate(function: Callable[..., Any]) -> Flow[Any, Any]:
        given = named("flow", options, _OPTIONS)
        plain, given["binds"] = unbound(function)
        given["name"] = given.get("name") or getattr(plain, "__name__", type(plain).__name__)
        given["description"] = given.get("description") or inspect.getdoc(plain) or ""
        return Flow(plain, **given)

    return decorate if fn is None else decorate(fn)
