"""From a call of a task to what the coordinator needs: sources of arguments, and dependencies.

Futures are looked for in lists, tuples, sets, dicts and dataclasses, at any depth. Each becomes a `Ref` in a
template and a dependency of the node.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runners.arguments import ATOMS, Aligned, Column, Element, Ref, Source, Static, rebuild
from runners.options import ambient_options

from ..core.records import Dependency, Reach
from ..errors import MappingError, ParameterError
from .annotations import allow_failure, current_tags, quote, unmapped
from .arriving import checked
from .futures import TaskRunFuture, TaskRunFutureList
from .parameters import unknown_keyword
from .states import State

if TYPE_CHECKING:
    from .tasks import Task

STATIC_TYPES = (str, bytes, bytearray, Mapping)


@dataclass(slots=True)
class NodeRequest:
    """A submit, map or call of a task, ready for a session. Picklable: tasks on workers send it to their flow."""

    task: Task[Any, Any]
    kind: str  # "single", "map" or "call"
    width: int | None
    args: tuple[Source, ...]
    kwargs: dict[str, Source]
    dependencies: tuple[Dependency, ...]
    shared: tuple[Ref, ...]
    picked: dict[int, list[Ref]]
    tags: frozenset[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    parent: tuple[int, int] | None = None


class Dependencies:
    """Collects what a node waits for. `node` ids and widths come from the futures themselves."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.shared: list[Ref] = []
        self.picked: dict[int, list[Ref]] = {}
        self._whole: dict[tuple[int, bool, bool], None] = {}  # by node, tolerant, reads
        self._some: dict[tuple[int, bool, bool], dict[int, None]] = {}
        self._ordering = False
        self._picks: dict[tuple[int, bool], dict[int, list[int]]] = {}
        self._others: list[Dependency] = []

    def value(self, value: Any, *, item: int | None = None, tolerant: bool = False) -> tuple[Any, bool]:
        """Return (template, whether it has refs) of an argument; note what it depends on.

        Args:
            item: the one item that has this argument; None: all have it.
        """
        if type(value) in ATOMS:
            return value, False
        if isinstance(value, quote):
            return value.value, False
        if isinstance(value, unmapped):
            return self.value(value.value, item=item, tolerant=tolerant)
        if isinstance(value, allow_failure):
            return self.value(value.value, item=item, tolerant=True)
        found = False

        def leaf(part: Any) -> Any:
            nonlocal found
            if isinstance(part, State):
                part = _stood_for(part, self.run_id, tolerant)
            if isinstance(part, TaskRunFuture | TaskRunFutureList):
                if part.run_id != self.run_id:  # of another flow run: its value is all that can cross
                    return part.result(raise_on_failure=not tolerant)
                found = True
                ref = part.ref()
                self._note(ref, item, tolerant, part)
                return ref
            if isinstance(part, quote | unmapped | allow_failure):
                inner, has = self.value(
                    part.value if not isinstance(part, quote) else part,
                    item=item,
                    tolerant=tolerant or isinstance(part, allow_failure),
                )
                found = found or has
                return inner
            return part

        return rebuild(value, leaf), found

    def order(self, wait_for: Iterable[Any] | None) -> None:
        """Note futures that are waited for without passing data, however they are nested. None: there are none.

        Raises:
            UserError: it is one future, or no collection at all.
        """
        self._ordering = True
        for value in checked(wait_for):
            before = len(self.shared)
            self.value(value)
            del self.shared[before:]
        self._ordering = False

    def aligned(self, futures: TaskRunFutureList, *, tolerant: bool) -> Aligned:
        """Item i takes the result of the list's i-th future."""
        self._others.append(Dependency(futures.node_id, Reach.ALIGNED, futures.indices, tolerant=tolerant))
        return Aligned(futures.node_id, futures.indices)

    def elements(self, future: TaskRunFuture, *, tolerant: bool) -> Element:
        """Item i takes element i of the future's result."""
        self.shared.append(future.ref())
        self._others.append(Dependency(future.node_id, Reach.ELEMENTS, (future.index,), tolerant=tolerant))
        return Element(future.ref(), ())

    def all(self) -> tuple[Dependency, ...]:
        """Return what was collected, at most one dependency per upstream node and kind."""
        found = list(self._others)
        whole, some = self._whole, self._some
        all_of = dict.fromkeys((n, t) for n, t, _ in whole)
        for n, t in all_of:
            reads = (n, t, True) in whole or (n, t, True) in some
            found.append(Dependency(n, Reach.ALL, tolerant=t, reads=reads))
        for (n, t, reads), members in some.items():
            read = () if reads else some.get((n, t, True), ())
            rest = () if (n, t) in all_of else tuple(i for i in members if i not in read)
            if rest:
                found.append(Dependency(n, Reach.SOME, rest, tolerant=t, reads=reads))
        for (n, t), picks in self._picks.items():
            found.append(Dependency(n, Reach.PICKED, picks=picks, tolerant=t))
        return tuple(found)

    def _note(self, ref: Ref, item: int | None, tolerant: bool, part: Any) -> None:
        members = (ref.index,) if ref.index is not None else ref.indices
        if item is None:
            self.shared.append(ref)
            order = (ref.node_id, tolerant, not self._ordering)
            if members is None:
                self._whole[order] = None
            else:
                self._some.setdefault(order, {}).update(dict.fromkeys(members))
            return
        key = (ref.node_id, tolerant)
        self.picked.setdefault(item, []).append(ref)
        if members is None:  # the whole list in one item's arguments
            members = range(len(part))
        self._picks.setdefault(key, {}).setdefault(item, []).extend(members)


def single(
    task: Task[Any, Any],
    kind: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    wait_for: Iterable[Any],
    run_id: str,
) -> NodeRequest:
    """Return the request of `task.submit(...)` or `task(...)`."""
    check_call(task, args, kwargs)
    found = Dependencies(run_id)

    def static(value: Any) -> Static:
        return Static(*found.value(value))

    sources = tuple(static(value) for value in args)
    named: dict[str, Source] = {name: static(value) for name, value in kwargs.items()}
    found.order(wait_for)
    return _request(task, kind, 1, sources, named, found)


def mapped(
    task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any], wait_for: Iterable[Any], run_id: str
) -> NodeRequest:
    """Return the request of `task.map(...)`.

    Raises:
        MappingError: iterables of unequal length, or none.
    """
    check_call(task, args, kwargs)
    found = Dependencies(run_id)
    widths: dict[str, int | None] = {}
    names = list(signature_of(task.fn).parameters)

    def source(label: str, value: Any) -> Source:
        made, width = _map_source(found, value)
        if width is not _STATIC:
            widths[label] = width
        return made

    sources = tuple(
        source(names[n] if n < len(names) else f"argument {n + 1}", value) for n, value in enumerate(args)
    )
    named = {name: source(name, value) for name, value in kwargs.items()}
    width = _common_width(task, widths)
    found.order(wait_for)
    return _request(task, "map", width, sources, named, found)


_STATIC: Any = object()


def _map_source(found: Dependencies, value: Any) -> tuple[Source, Any]:
    """Return an argument's source and its width: None if not known yet, _STATIC if it is not mapped over."""
    tolerant = isinstance(value, allow_failure)
    inner = value.value if tolerant else value
    if isinstance(inner, State):
        inner = _stood_for(inner, found.run_id, tolerant)
    if isinstance(inner, unmapped | quote):
        return Static(*found.value(inner, tolerant=tolerant)), _STATIC
    if isinstance(inner, TaskRunFutureList):
        if inner.run_id != found.run_id:
            inner = inner.result(raise_on_failure=not tolerant)
        else:
            # a width learned at run time is for the coordinator to say: one item may stand for a map that cannot be
            width = None if inner.indices is None else len(inner.indices)
            return found.aligned(inner, tolerant=tolerant), width
    if isinstance(inner, TaskRunFuture):
        if inner.run_id != found.run_id:
            inner = inner.result(raise_on_failure=not tolerant)
        else:
            return found.elements(inner, tolerant=tolerant), None
    if isinstance(inner, STATIC_TYPES) or not isinstance(inner, Iterable):
        return Static(*found.value(inner, tolerant=tolerant)), _STATIC
    values: Sequence[Any] = inner if isinstance(inner, range) else list(inner)
    if isinstance(values, range) or all(type(v) in ATOMS for v in values):
        return Column(values), len(values)
    pairs = [found.value(v, item=i, tolerant=tolerant) for i, v in enumerate(values)]
    has_refs = any(has for _, has in pairs)
    return Column([v for v, _ in pairs], has_refs), len(values)


def _stood_for(state: State, run_id: str, tolerant: bool) -> Any:
    """Return what a state stands for in arguments: the future of its task run, or its result where that is at hand."""
    future = state.stands_for(run_id, tolerant=tolerant)
    return state.result(raise_on_failure=not tolerant) if future is None else future


def _common_width(task: Task[Any, Any], widths: Mapping[str, int | None]) -> int | None:
    if not widths:
        raise MappingError(
            f"{task.name}.map() was given nothing to map over: no argument is an iterable or a list of futures. "
            "Use submit() for a single call."
        )
    known = {name: width for name, width in widths.items() if width is not None}
    if len(set(known.values())) > 1:
        lengths = ", ".join(f"{name}: {width}" for name, width in known.items())
        raise MappingError(
            f"{task.name}.map() was given iterables of unequal length ({lengths}). Make them equally long, or wrap "
            "what is the same for all items in unmapped()."
        )
    return next(iter(known.values())) if known else None


def _request(
    task: Task[Any, Any],
    kind: str,
    width: int | None,
    args: tuple[Source, ...],
    kwargs: dict[str, Source],
    found: Dependencies,
) -> NodeRequest:
    return NodeRequest(
        task=task,
        kind=kind,
        width=width,
        args=args,
        kwargs=kwargs,
        dependencies=found.all(),
        shared=tuple(found.shared),
        picked=found.picked,
        tags=task.tags | around if (around := current_tags.get()) else task.tags,
        options={**ambient_options.get(), **task.runner_options},
    )


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return a function's signature; looking it up takes longer than all else that a submission does."""
    try:
        return _cached_signature(fn)
    except TypeError:  # an object that cannot be hashed, or no signature: that is raised again
        return inspect.signature(fn)


_cached_signature = lru_cache(maxsize=1024)(inspect.signature)


@lru_cache(maxsize=1024)
def _numbers_of_positional(fn: Callable[..., Any]) -> range:
    """Return with how many positional arguments alone a function may be called: to bind them takes 20 times as long."""
    least = most = 0
    for parameter in inspect.signature(fn).parameters.values():
        needed = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            least, most = least + needed, most + 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = sys.maxsize - 1
        elif parameter.kind is parameter.KEYWORD_ONLY and needed:
            return range(0)
    return range(least, most + 1)


def check_call(task: Task[Any, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise ParameterError if a call does not fit the task's signature."""
    try:
        if not kwargs and len(args) in _numbers_of_positional(task.fn):
            return
        signature = signature_of(task.fn)
        signature.bind(*args, **kwargs)
    except TypeError as error:
        problem = unknown_keyword(signature, kwargs) or error
        raise ParameterError(f"task {task.name!r} {task.signature()}: {problem}") from None
    except ValueError:  # builtins without a signature
        return
