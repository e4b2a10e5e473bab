"""Cache policies: which calls of a task may take a result that an earlier call has left in result storage.

A policy makes a key of a call, on the worker. Equal keys, equal results. Policies are added and subtracted:

    @task(cache_policy=INPUTS + TASK_SOURCE)    # again only for new arguments or new code
    @task(cache_policy=INPUTS - "debug")        # whatever `debug` is
    @task(cache_key_fn=lambda context, parameters: f"report-{parameters['day']}")

Keys of the built-in policies contain the task's name, so two tasks share results only where a `cache_key_fn`
gives both the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .context import ItemContext, RunContext, current_item
from .errors import SerializationError, UserError
from .hashing import fingerprint, name_of

CacheKeyFn = Callable[["KeyContext", dict[str, Any]], str | None]


@dataclass(frozen=True, slots=True)
class CacheCall:
    """One call of a task, as policies see it. `parameters` has the arguments by name, defaults included."""

    task_name: str
    source: str
    parameters: Mapping[str, Any]
    run: RunContext


class CachePolicy:
    """Makes cache keys. For a policy of your own override `compute_key`; `+` and `-` come with it.

    Policies are values: they can be compared, hashed and pickled.
    """

    def compute_key(self, call: CacheCall) -> str | None:
        """Return the key of a call, or None where this policy has nothing to say.

        Calls for which the whole policy says None are not cached.

        Raises:
            SerializationError: an argument has no fingerprint; the message names it and the cure.
        """
        raise NotImplementedError

    def __add__(self, other: CachePolicy) -> CachePolicy:
        """Return a policy whose keys differ where those of `self` or of `other` do. NO_CACHE adds nothing."""
        if not isinstance(other, CachePolicy):
            return NotImplemented
        return _union((*_members(self), *_members(other)))

    def __sub__(self, parameter: str) -> CachePolicy:
        """Return the policy with a parameter left out of INPUTS; without INPUTS in it, the policy itself."""
        if not isinstance(parameter, str):
            raise TypeError(
                f"subtract a parameter's name from a cache policy, as in INPUTS - 'debug', not {parameter!r}"
            )
        return self


@dataclass(frozen=True, repr=False)
class _Inputs(CachePolicy):
    excluded: frozenset[str] = frozenset()

    def compute_key(self, call: CacheCall) -> str | None:
        if not call.parameters:  # a task without parameters: as in Prefect, INPUTS alone does not cache it
            return None
        kept = {name: value for name, value in call.parameters.items() if name not in self.excluded}
        prints = _fingerprints(kept, "argument", f"task {call.task_name!r}", _INPUTS_CURE)
        return _key("inputs", call, prints)

    def __sub__(self, parameter: str) -> CachePolicy:
        super().__sub__(parameter)
        return _Inputs(self.excluded | {parameter})

    def __repr__(self) -> str:
        return " - ".join(["INPUTS", *map(repr, sorted(self.excluded))])


@dataclass(frozen=True, repr=False)
class _TaskSource(CachePolicy):
    def compute_key(self, call: CacheCall) -> str | None:
        return _key("source", call, call.source) if call.source else None

    def __repr__(self) -> str:
        return "TASK_SOURCE"


@dataclass(frozen=True, repr=False)
class _FlowParameters(CachePolicy):
    def compute_key(self, call: CacheCall) -> str | None:
        if not call.run.parameters:
            return None
        owner = f"flow {call.run.flow_name!r}"
        return _key("flow", call, _fingerprints(call.run.parameters, "parameter", owner, _FLOW_CURE))

    def __repr__(self) -> str:
        return "FLOW_PARAMETERS"


@dataclass(frozen=True, repr=False)
class _RunId(CachePolicy):
    def compute_key(self, call: CacheCall) -> str | None:
        return _key("run", call, call.run.run_id)

    def __repr__(self) -> str:
        return "RUN_ID"


@dataclass(frozen=True, repr=False)
class _NoCache(CachePolicy):
    def compute_key(self, call: CacheCall) -> str | None:
        return None

    def __repr__(self) -> str:
        return "NO_CACHE"


@dataclass(frozen=True, repr=False, eq=False)
class _Union(CachePolicy):
    """Two or more policies, none of them twice. In the order written, which only the repr shows."""

    members: tuple[CachePolicy, ...]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Union):
            return NotImplemented
        return len(self.members) == len(other.members) and all(m in other.members for m in self.members)

    def __hash__(self) -> int:  # not of the members: a user's policy may be a dataclass without a hash
        return hash((_Union, len(self.members)))

    def compute_key(self, call: CacheCall) -> str | None:
        keys = [key for member in self.members if (key := member.compute_key(call)) is not None]
        return fingerprint(sorted(keys)) if keys else None

    def __sub__(self, parameter: str) -> CachePolicy:
        return _union(tuple(member - parameter for member in self.members))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.members))


@dataclass(frozen=True, repr=False)
class KeyFunction(CachePolicy):
    """The policy behind `@task(cache_key_fn=...)`: the function's answer is the key, as it stands.

    Attributes:
        fn: called as `fn(context, parameters)`; returns a string, or None to run without the cache.
    """

    fn: CacheKeyFn

    def compute_key(self, call: CacheCall) -> str | None:
        key = self.fn(KeyContext.of(call), dict(call.parameters))
        if key is None or isinstance(key, str):
            return key
        raise UserError(
            f"the cache_key_fn of task {call.task_name!r} returned a {type(key).__name__}. "
            f"Return a string, or None to run without the cache."
        )

    def __repr__(self) -> str:
        return f"KeyFunction({getattr(self.fn, '__name__', None) or repr(self.fn)})"


INPUTS = _Inputs()
TASK_SOURCE = _TaskSource()
FLOW_PARAMETERS = _FlowParameters()
RUN_ID = _RunId()
NO_CACHE = _NoCache()


@dataclass(frozen=True, slots=True)
class KeyTask:
    """The task, as a `cache_key_fn` sees it."""

    name: str
    fn: Callable[..., Any] | None = None
    tags: frozenset[str] = frozenset()
    source_code: str = ""

    @property
    def task_key(self) -> str:
        return self.name if self.fn is None else name_of(self.fn)


@dataclass(frozen=True, slots=True)
class KeyTaskRun:
    """The task run, as a `cache_key_fn` sees it."""

    id: str
    name: str
    flow_run_id: str
    index: int | None = None
    run_count: int = 1  # the attempt's number
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The first argument of a `cache_key_fn`, with the names that functions written for Prefect use."""

    task_name: str
    task: KeyTask
    task_run: KeyTaskRun
    flow_run: RunContext
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, call: CacheCall) -> KeyContext:
        item = current_item.get()
        return cls(call.task_name, _task_of(call, item), _task_run_of(call, item), call.run, call.parameters)


def _task_of(call: CacheCall, item: ItemContext | None) -> KeyTask:
    if item is None:
        return KeyTask(call.task_name, source_code=call.source)
    return KeyTask(call.task_name, item.body.fn, item.body.tags, call.source)


def _task_run_of(call: CacheCall, item: ItemContext | None) -> KeyTaskRun:
    if item is None:  # asked outside of a task run, for instance in a test of the function
        return KeyTaskRun("", call.task_name, call.run.run_id)
    return KeyTaskRun(
        item.task_run_id, item.name, call.run.run_id, item.index, item.attempt, item.body.tags | call.run.tags
    )


def task_input_hash(context: KeyContext, parameters: Mapping[str, Any]) -> str:
    """Return a key made of the task's name, its source and its arguments: a ready-made `cache_key_fn`.

    Raises:
        SerializationError: as INPUTS.
    """
    prints = _fingerprints(parameters, "argument", f"task {context.task_name!r}", _FUNCTION_CURE)
    return fingerprint(["task_input_hash", context.task_name, context.task.source_code, prints])


_INPUTS_CURE = "Leave it out with cache_policy=INPUTS - {!r}, or make the key yourself with cache_key_fn."
_FUNCTION_CURE = "Give the task a cache_key_fn that leaves {!r} out."
_FLOW_CURE = "Leave FLOW_PARAMETERS out of the cache_policy, or make the key yourself with cache_key_fn."


def _fingerprints(values: Mapping[str, Any], kind: str, owner: str, cure: str) -> dict[str, str]:
    prints = {}
    for name, value in values.items():
        try:
            prints[name] = fingerprint(value)
        except Exception as error:
            problem = (
                "it contains itself or is nested too deeply" if isinstance(error, RecursionError) else error
            )
            raise SerializationError(
                f"{kind} {name!r} of {owner}, of type {type(value).__qualname__}, cannot be part of a cache "
                f"key: {problem}. {cure.format(name)}"
            ) from error
    return prints


def _key(kind: str, call: CacheCall, content: Any) -> str:
    return fingerprint([kind, call.task_name, content])


def _members(policy: CachePolicy) -> tuple[CachePolicy, ...]:
    return policy.members if isinstance(policy, _Union) else (policy,)


def _union(policies: tuple[CachePolicy, ...]) -> CachePolicy:
    """Join policies: NO_CACHE and repetitions go, several INPUTS become one that leaves out what any does."""
    inputs = _Inputs(frozenset[str]().union(*(p.excluded for p in policies if isinstance(p, _Inputs))))
    members: list[CachePolicy] = []
    for policy in policies:
        member = inputs if isinstance(policy, _Inputs) else policy
        if member != NO_CACHE and member not in members:
            members.append(member)
    if len(members) > 1:
        return _Union(tuple(members))
    return members[0] if members else NO_CACHE
