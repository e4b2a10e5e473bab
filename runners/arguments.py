"""Arguments of task runs: what is constant, what differs per item, and what comes from upstream results.

In the flow's process an argument that contains futures becomes a template: the same value with a `Ref` in
each future's place. On the worker `Arguments.bind` puts results back where refs stand. Only templates are
walked again there; a value without refs is handed over as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .elements import element
from .errors import InternalError, ResultLostError
from .relay import Relay
from .result_format import MISSING

ATOMS = frozenset({int, float, str, bytes, bool, type(None), complex, bytearray, range})


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for results of a node: of one item, of some (a list), or of all (`indices` None: a list)."""

    node_id: int
    index: int | None = None
    indices: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Static:
    """The same value for every item."""

    value: Any
    template: bool = False  # contains refs


@dataclass(frozen=True, slots=True)
class Column:
    """One value per item of the batch."""

    values: Sequence[Any]
    template: bool = False


@dataclass(frozen=True, slots=True)
class Aligned:
    """Position p of the batch takes the result of upstream item `indices[p]`.

    Before the arguments of a batch are cut out of those of its node, None stands for the same index.
    """

    node_id: int
    indices: Sequence[int] | None


@dataclass(frozen=True, slots=True)
class Element:
    """Item i takes element i of the one result that `ref` stands for."""

    ref: Ref
    indices: Sequence[int]  # of the batch's items


@dataclass(frozen=True, slots=True)
class Shared:
    """Source number `number` of those that all batches of the node share (see `Stage.shared`)."""

    number: int


Source = Static | Column | Aligned | Element | Shared
Lookup = Callable[[int, int], Any]  # (node_id, index) -> value


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a batch's items for one stage."""

    args: tuple[Source, ...] = ()
    kwargs: Mapping[str, Source] = field(default_factory=dict)

    def with_shared(self, shared: Sequence[Source]) -> Arguments:
        """Return these arguments with the shared sources in their places."""

        def found(source: Source) -> Source:
            return shared[source.number] if type(source) is Shared else source

        return Arguments(tuple(map(found, self.args)), {name: found(s) for name, s in self.kwargs.items()})

    def has_refs(self) -> bool:
        """Whether results of upstream items may be inside other values: then they are looked up by item."""
        sources = (*self.args, *self.kwargs.values())
        return any(isinstance(s, Element) or (isinstance(s, Static | Column) and s.template) for s in sources)

    def bind(self, position: int, inputs: Inputs) -> tuple[list[Any], dict[str, Any]]:
        """Return (args, kwargs) of the item at `position`.

        Raises:
            ResultLostError: an upstream result is not among the inputs.
        """
        return self.binder(inputs)(position)

    def binder(
        self, inputs: Inputs, relay: Relay | None = None
    ) -> Callable[[int], tuple[list[Any], dict[str, Any]]]:
        """Return `bind` for all positions: what can be decided once for the batch is decided here.

        Args:
            relay: what the stage before in the same batch leaves.
        """

        def get(source: Source) -> Callable[[int], Any]:
            relayed = relay is not None and isinstance(source, Aligned) and source.node_id == relay.node_id
            return relay.take if relay is not None and relayed else getter(source, inputs)

        args = [get(source) for source in self.args]
        kwargs = {name: get(source) for name, source in self.kwargs.items()}

        def bind(position: int) -> tuple[list[Any], dict[str, Any]]:
            return [get(position) for get in args], {name: get(position) for name, get in kwargs.items()}

        if kwargs:
            return bind
        if len(args) == 1:  # as most maps have it
            (only,) = args
            return lambda position: ([only(position)], {})
        return lambda position: ([get(position) for get in args], {})


class Inputs:
    """Values of upstream results, by node and item."""

    def __init__(self) -> None:
        self._values: dict[int, dict[int, Any]] = {}
        self._lost: set[int] = set()  # nodes of which a result was asked for and is not there

    def add(self, node_id: int, indices: Sequence[int], values: Sequence[Any]) -> bool:
        """Add results of a node. Returns whether all of them are there."""
        known = self._values.setdefault(node_id, {})
        whole = True
        for index, value in zip(indices, values, strict=True):
            if value is MISSING:
                self._lost.add(node_id)
                whole = False
            else:
                known[index] = value
        return whole

    def of_node(self, node_id: int) -> dict[int, Any]:
        """Return the values of a node by item; stages of the same batch put theirs there and take them out."""
        return self._values.setdefault(node_id, {})

    def one(self, node_id: int, index: int) -> Any:
        try:
            return self._values[node_id][index]
        except KeyError:
            raise _not_there(node_id, index) from None

    def many(self, node_id: int, indices: Sequence[int] | None) -> list[Any]:
        """Return results of a node in the order of `indices`; all that were handed over, where it is None."""
        known = self._values.get(node_id, {})
        if indices is not None:
            return [self.one(node_id, index) for index in indices]
        if node_id in self._lost:
            raise ResultLostError(f"results of node {node_id} are not there")
        return [known[index] for index in sorted(known)]

    def of(self, ref: Ref) -> Any:
        if ref.index is not None:
            return self.one(ref.node_id, ref.index)
        return self.many(ref.node_id, ref.indices)


def getter(source: Source, inputs: Inputs) -> Callable[[int], Any]:
    """Return a function from a position in the batch to the value that `source` has for it."""
    match source:
        case Static(value, template):
            return (lambda _: fill(value, inputs)) if template else lambda _: value
        case Column(values, template):
            return (lambda position: fill(values[position], inputs)) if template else values.__getitem__
        case Aligned(node_id, aligned):
            if aligned is None:
                raise InternalError(f"arguments that take results of node {node_id} belong to no batch yet")
            return _taker(node_id, aligned, inputs.of_node(node_id))
        case Element(ref, indices):
            return lambda position: element(inputs.of(ref), indices[position])
        case Shared(number):
            raise InternalError(f"shared argument {number} has been left where it was")


def _taker(node_id: int, indices: Sequence[int], values: Mapping[int, Any]) -> Callable[[int], Any]:
    def take(position: int) -> Any:
        try:
            return values[indices[position]]
        except KeyError:
            raise _not_there(node_id, indices[position]) from None

    return take


def _not_there(node_id: int, index: int) -> ResultLostError:
    return ResultLostError(f"the result of item {index} of node {node_id} is not there")


def resolve(source: Source, position: int, inputs: Inputs) -> Any:
    """Return the value that `source` has for the item at `position`."""
    return getter(source, inputs)(position)


def fill(template: Any, inputs: Inputs) -> Any:
    """Return `template` with results in the place of its refs."""
    return rebuild(template, lambda leaf: inputs.of(leaf) if type(leaf) is Ref else leaf)


def rebuild(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return `value` with `leaf` applied to everything in it that is no container.

    Containers are lists, tuples (also named ones), sets, frozensets, dicts and dataclass instances, at any
    depth; they are copied only where something in them changed. Works on an explicit stack, so that
    nesting is not bounded by the recursion limit; a container that contains itself keeps doing so only if
    nothing in it changes.
    """
    return _Rebuilder(leaf).run(value)


class _Rebuilder:
    """One post-order walk. `done` maps the id of a visited container to its replacement.

    The walk holds on to all parts it has seen, because ids of what properties and sets hand out for a moment
    would be used again.
    """

    def __init__(self, leaf: Callable[[Any], Any]) -> None:
        self.leaf = leaf
        self.done: dict[int, Any] = {}
        self.open: dict[int, Sequence[Any]] = {}  # parts of visited containers

    def run(self, root: Any) -> Any:
        stack = [root]
        while stack:
            value = stack[-1]
            key = id(value)
            if key in self.done:
                stack.pop()
            elif key in self.open:
                stack.pop()
                self.done[key] = self._close(value, self.open[key])
            elif (parts := children(value)) is None:
                stack.pop()
            else:
                self.open[key] = parts
                stack.extend(p for p in parts if type(p) not in ATOMS and id(p) not in self.open)
        return self._of(root)

    def _of(self, value: Any) -> Any:
        key = id(value)
        if key in self.done:
            return self.done[key]
        if key in self.open:  # a cycle: left as it is
            return value
        return self.leaf(value)

    def _close(self, value: Any, parts: Sequence[Any]) -> Any:
        new = [self._of(part) for part in parts]
        if all(a is b for a, b in zip(new, parts, strict=True)):
            return value
        return with_children(value, new)


def children(value: Any) -> Sequence[Any] | None:
    """Return the parts of a container, or None for anything else."""
    kind = type(value)
    if kind in ATOMS or kind is Ref:
        return None
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, name) for name in _field_names(value)]
    return None


def with_children(value: Any, parts: Sequence[Any]) -> Any:
    """Return a container like `value` with other parts. No `__init__` of a user's class runs for it."""
    kind = type(value)
    if isinstance(value, tuple):
        return _with_state(tuple.__new__(kind, parts), value)
    if isinstance(value, frozenset):
        return _with_state(frozenset.__new__(kind, parts), value)
    if isinstance(value, list):
        twin: Any = list.__new__(kind)
        list.extend(twin, parts)
        return _with_state(twin, value)
    if isinstance(value, set):
        twin = set.__new__(kind)
        set.update(twin, parts)
        return _with_state(twin, value)
    twin = copy.copy(value)  # keeps slots, a defaultdict's factory
    if isinstance(value, dict):
        half = len(parts) // 2
        twin.clear()
        twin.update(zip(parts[:half], parts[half:], strict=True))
        return twin
    for name, part in zip(_field_names(value), parts, strict=True):
        object.__setattr__(twin, name, part)
    return twin


def _field_names(value: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]


def _with_state(twin: Any, value: Any) -> Any:
    state = getattr(value, "__dict__", None)
    if state:
        twin.__dict__.update(state)
    return twin
