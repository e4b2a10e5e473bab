"""Tasks: functions with a policy."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from runners.body import TaskBody
from runners.caching import NO_CACHE, CachePolicy, KeyFunction

from ..core.records import Policy
from ..core.retry import delays
from ..core.triggers import Tally, Trigger, all_successful
from ..errors import UserError
from .annotations import unmapped
from .futures import TaskRunFuture, TaskRunFutureList
from .option_checks import Binds, Hooks, named, settle, shown, unbound
from .requests import mapped, single
from .sessions import Defaults, active_session
from .states import State

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(eq=False)
class Task(Generic[P, R]):
    """A function that runs as a task. Made by `@task`; see there for the fields.

    Called in a flow it runs now, in this process, as a task run of its own. `submit` and `map` hand it to the
    flow's task runner. Outside a flow a call is a plain call.
    """

    fn: Callable[P, R]
    name: str = ""
    description: str = ""
    version: str = ""
    tags: frozenset[str] = frozenset()
    task_run_name: str | Callable[..., str] | None = None
    retries: int = 0
    retry_delay_seconds: float | Sequence[float] | Callable[[int], float] = 0
    retry_jitter_factor: float | None = None
    retry_condition_fn: Callable[..., bool] | None = None
    retries_on_loss: int = 3
    rerun_on_loss: bool = True
    timeout_seconds: float | None = None
    cache_key_fn: Callable[..., str | None] | None = None
    cache_policy: CachePolicy | None = None
    cache_expiration: timedelta | float | None = None
    refresh_cache: bool = False
    persist_results: bool | None = None
    result_storage: str | None = None
    result_serializer: str | None = None
    skip_on_upstream_skip: bool = True
    trigger: Trigger | Callable[[list[State]], bool] = all_successful
    runner_options: Mapping[str, Any] = field(default_factory=dict)
    batch: int | Literal["auto"] = "auto"
    max_concurrency: int | None = None
    log_prints: bool | None = None
    on_running: Hooks = field(default_factory=Hooks)
    on_completion: Hooks = field(default_factory=Hooks)
    on_failure: Hooks = field(default_factory=Hooks)
    on_retry: Hooks = field(default_factory=Hooks)
    on_crashed: Hooks = field(default_factory=Hooks)
    on_cancellation: Hooks = field(default_factory=Hooks)
    bound: tuple[Any, ...] = ()  # the instance, or the class, for methods
    binds: Binds = "instance"

    def __post_init__(self) -> None:
        settle(self, "task")
        functools.update_wrapper(self, self.fn, updated=())

    # --- running --------------------------------------------------------------------------------

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        from .calls import call_task

        return call_task(self, self.bound + args, kwargs)  # type: ignore[no-any-return]

    @overload
    def submit(
        self, /, *args: Any, wait_for: Iterable[Any] = ..., return_state: Literal[False] = ..., **kwargs: Any
    ) -> TaskRunFuture: ...
    @overload
    def submit(
        self, /, *args: Any, wait_for: Iterable[Any] = ..., return_state: Literal[True], **kwargs: Any
    ) -> State: ...
    def submit(
        self, /, *args: Any, wait_for: Iterable[Any] = (), return_state: bool = False, **kwargs: Any
    ) -> TaskRunFuture | State:
        """Hand one call to the flow's task runner and return its future at once.

        Args:
            wait_for: futures to wait for without taking their results.
            return_state: wait, and return the final State instead.
        """
        session = self._session("submit")
        request = single(self, "single", self.bound + args, kwargs, wait_for, session.run_id)
        node_id = session.submit(request)
        future = TaskRunFuture(session, node_id, 0, hold=session.hold(node_id))
        if not return_state:
            return future
        future.wait()
        return future.state

    @overload
    def map(
        self, /, *args: Any, wait_for: Iterable[Any] = ..., return_state: Literal[False] = ..., **kwargs: Any
    ) -> TaskRunFutureList: ...
    @overload
    def map(
        self, /, *args: Any, wait_for: Iterable[Any] = ..., return_state: Literal[True], **kwargs: Any
    ) -> list[State]: ...
    def map(
        self, /, *args: Any, wait_for: Iterable[Any] = (), return_state: bool = False, **kwargs: Any
    ) -> TaskRunFutureList | list[State]:
        """Call the task once per item of its iterable arguments, which are of equal length.

        Strings, bytes, mappings and scalars are the same for all items, as is what is wrapped in `unmapped`. An
        upstream future is mapped over its result, whose length is learned when it arrives.
        """
        session = self._session("map")
        bound = tuple(unmapped(value) for value in self.bound)
        request = mapped(self, bound + args, kwargs, wait_for, session.run_id)
        node_id = session.submit(request)
        indices = None if request.width is None else range(request.width)
        futures = TaskRunFutureList(session, node_id, indices, hold=session.hold(node_id))
        if not return_state:
            return futures
        futures.wait()
        return [future.state for future in futures]

    def _session(self, verb: str) -> Any:
        session = active_session()
        if session is None:
            raise UserError(
                f"{self.name}.{verb}() was called outside a flow run. Call it inside a function decorated with "
                f"@flow, or call {self.name}(...) for a plain call."
            )
        return session

    # --- shaping --------------------------------------------------------------------------------

    def with_options(self, **options: Any) -> Task[P, R]:
        """Return a copy with other options; the fields of `@task`."""
        return replace(self, **named("task", options, _OPTIONS))

    def __get__(self, instance: Any, owner: type | None = None) -> Task[P, R]:
        """Bind a task that is a method to its instance, or to its class."""
        first = owner if self.binds == "class" else instance
        if first is None or self.bound or self.binds == "nothing":
            return self
        return replace(self, bound=(first,))

    # --- for the machinery ----------------------------------------------------------------------

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn) or inspect.isasyncgenfunction(self.fn)

    def signature(self) -> str:
        try:
            return str(inspect.signature(self.fn))
        except (TypeError, ValueError):
            return "(...)"

    def policy(self, options: Mapping[str, Any]) -> Policy:
        """Return what the coordinator needs to know."""
        trigger = self.trigger
        return Policy(
            retries=self.retries,
            delay=delays(self.retry_delay_seconds),
            jitter=self.retry_jitter_factor or 0.0,
            retries_on_loss=self.retries_on_loss,
            rerun_on_loss=self.rerun_on_loss,
            timeout_seconds=self.timeout_seconds,
            trigger=trigger if isinstance(trigger, Trigger) else _custom_trigger(trigger),
            skip_on_upstream_skip=self.skip_on_upstream_skip,
            batch=None if self.batch == "auto" else self.batch,
            priority=int(options.get("priority", 0)),
            max_concurrency=self.max_concurrency,
        )

    def body(self, tags: frozenset[str], defaults: Defaults) -> TaskBody:
        """Return what workers need to know, with the flow's defaults filled in."""
        cache = KeyFunction(self.cache_key_fn) if self.cache_key_fn is not None else self.cache_policy
        expires = self.cache_expiration
        persist = defaults.persist_results if self.persist_results is None else self.persist_results
        storage = self.result_storage or defaults.result_storage
        if self.result_storage and (persist or cache is not None):
            storage = _opened(self)
        return TaskBody(
            fn=self.fn,
            task_name=self.name,
            tags=tags,
            run_name=self.task_run_name,
            log_prints=bool(defaults.log_prints if self.log_prints is None else self.log_prints),
            retry_condition=self.retry_condition_fn,
            cache=None if cache is NO_CACHE else cache,
            cache_expiration_seconds=expires.total_seconds() if isinstance(expires, timedelta) else expires,
            refresh_cache=self.refresh_cache,
            source=_source(self.fn),
            persist=persist,
            storage_url=storage,
            serializer=self.result_serializer or defaults.result_serializer,
        )

    def described(self) -> dict[str, Any]:
        """Return the policy as JSON values, for the record."""
        delay = self.retry_delay_seconds
        return {
            "retries": self.retries,
            "retry_delay_seconds": "function" if callable(delay) else delay,
            "retries_on_loss": self.retries_on_loss,
            "rerun_on_loss": self.rerun_on_loss,
            "timeout_seconds": self.timeout_seconds,
            "trigger": getattr(self.trigger, "name", None) or getattr(self.trigger, "__name__", "custom"),
            "batch": self.batch,
            "max_concurrency": self.max_concurrency,
            "version": self.version,
        }

    def has_hooks(self) -> bool:
        return any(
            (
                self.on_running,
                self.on_completion,
                self.on_failure,
                self.on_retry,
                self.on_crashed,
                self.on_cancellation,
            )
        )

    def __repr__(self) -> str:
        return f"<task {self.name!r}>"


def _custom_trigger(fn: Callable[[list[State]], bool]) -> Trigger:
    """Give users' trigger functions the states that they know."""

    def holds(tally: Tally) -> bool:
        answer: Any = fn([State(state.title) for state in tally.states()])
        if answer is None or not hasattr(
            answer, "__bool__"
        ):  # a forgotten return, a text, something to await
            raise TypeError(f"it returned {shown(answer)}; a trigger returns True or False")
        return bool(answer)

    return Trigger(getattr(fn, "__name__", "custom trigger"), holds)


def _opened(task: Task[Any, Any]) -> str:
    """Return the address of a task's own result storage, absolute: workers have other current folders."""
    from runners.errors import UserError as UnknownPlace
    from runners.storage import open_storage

    try:
        return open_storage(task.result_storage or "").url
    except UnknownPlace as error:
        raise UserError(f"task {task.name!r}: {error}") from None


def _source(fn: Callable[..., Any]) -> str:
    """Return a function's source, or its code where there is no source."""
    try:
        return inspect.getsource(inspect.unwrap(fn))
    except (OSError, TypeError):
        code = getattr(inspect.unwrap(fn), "__code__", None)
        return f"{code.co_code.hex()}{code.co_consts!r}" if code is not None else repr(fn)


_OPTIONS = frozenset(f.name for f in fields(Task)) - {"fn", "bound", "binds"}


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(fn: Any = None, /, **options: Any) -> Any:
    """Make a function a task.

    Args:
        name, description, version: from the function where not given.
        tags: names that limits can be set on, and that runs can be found by.
        task_run_name: template with parameters in braces, or callable(parameters) -> str.
        retries: how often to try again after a failure.
        retry_delay_seconds: a number, a list (its last entry repeats), `exponential_backoff(...)` or
            callable(n) -> seconds before retry n, from 1. Waiting holds no slot.
        retry_jitter_factor: up to this share of the delay is added at random.
        retry_condition_fn: callable(task, task_run, state) -> bool: whether to try again.
        retries_on_loss: how often to run again after losing the worker; a budget of its own.
        rerun_on_loss: False: never start the code twice; a lost attempt ends as Crashed.
        timeout_seconds: of each attempt; state Failed, name TimedOut.
        cache_key_fn, cache_policy, cache_expiration, refresh_cache: when a stored result stands for a run.
        persist_results, result_storage, result_serializer: whether, where (a path or any fsspec URL) and how
            ("cloudpickle", "json", "msgpack") results are stored; the flow's where not given.
        skip_on_upstream_skip: skip it if anything upstream was skipped.
        trigger: whether it may run, given how its upstream ended.
        runner_options: for its runner, such as {"resources": {"GPU": 1}} on Dask or {"num_cpus": 2} on Ray.
        batch: items per batch; "auto" measures; 1 turns batching off.
        max_concurrency: how many of its task runs are at work at once within a flow run, in all its maps and submits.
        log_prints: prints become log lines; the flow's where not given.
        on_running, on_completion, on_failure, on_retry, on_crashed, on_cancellation: hooks,
            called as hook(task, task_run, state).
    """

    def decorate(function: Callable[..., Any]) -> Task[Any, Any]:
        given = named("task", options, _OPTIONS)
        plain, given["binds"] = unbound(function)
        given["name"] = given.get("name") or getattr(plain, "__name__", type(plain).__name__)
        given["description"] = given.get("description") or inspect.getdoc(plain) or ""
        return Task(plain, **given)

    return decorate if fn is None else decorate(fn)
