"""Arguments of task runs: what is constant, what differs per item, and what comes from upstream results.

In the flow's process an argument that contains futures becomes a template: the same value with a `Ref` in
each future's place. On the worker `Arguments.bind` puts results back where refs stand. Only templates are
walked again there; a value without refs is handed over as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    """Position p of the batch takes the result of upstream item `indices[p]`."""

    node_id: int
    indices: Sequence[int]


@dataclass(frozen=True, slots=True)
class Element:
    """Item i takes element i of the one result that `ref` stands for."""

    ref: Ref
    indices: Sequence[int]  # of the batch's items


Source = Static | Column | Aligned | Element
Lookup = Callable[[int, int], Any]  # (node_id, index) -> value


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a batch's items for one stage."""

    args: tuple[Source, ...] = ()
    kwargs: Mapping[str, Source] = field(default_factory=dict)

    def bind(self, position: int, inputs: Inputs) -> tuple[list[Any], dict[str, Any]]:
        """Return (args, kwargs) of the item at `position`."""
        args = [resolve(source, position, inputs) for source in self.args]
        return args, {name: resolve(source, position, inputs) for name, source in self.kwargs.items()}


class Inputs:
    """Values of upstream results, by node and item."""

    def __init__(self) -> None:
        self._values: dict[int, dict[int, Any]] = {}

    def add(self, node_id: int, indices: Sequence[int], values: Sequence[Any]) -> None:
        self._values.setdefault(node_id, {}).update(zip(indices, values, strict=True))

    def one(self, node_id: int, index: int) -> Any:
        return self._values[node_id][index]

    def many(self, node_id: int, indices: Sequence[int] | None) -> list[Any]:
        known = self._values.get(node_id, {})
        return [known[i] for i in (range(len(known)) if indices is None else indices)]

    def of(self, ref: Ref) -> Any:
        if ref.index is not None:
            return self.one(ref.node_id, ref.index)
        return self.many(ref.node_id, ref.indices)


def resolve(source: Source, position: int, inputs: Inputs) -> Any:
    match source:
        case Static(value, template):
            return fill(value, inputs) if template else value
        case Column(values, template):
            return fill(values[position], inputs) if template else values[position]
        case Aligned(node_id, indices):
            return inputs.one(node_id, indices[position])
        case Element(ref, indices):
            return inputs.of(ref)[indices[position]]


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
    """One post-order walk. `done` maps the id of a visited container to its replacement."""

    def __init__(self, leaf: Callable[[Any], Any]) -> None:
        self.leaf = leaf
        self.done: dict[int, Any] = {}
        self.open: set[int] = set()

    def run(self, root: Any) -> Any:
        stack = [root]
        while stack:
            value = stack[-1]
            if id(value) in self.done or (parts := children(value)) is None:
                stack.pop()
                continue
            if id(value) not in self.open:
                self.open.add(id(value))
                stack.extend(p for p in parts if id(p) not in self.open and id(p) not in self.done)
                continue
            stack.pop()
            self.done[id(value)] = self._close(value, parts)
        return self._of(root)

    def _of(self, value: Any) -> Any:
        if id(value) in self.done:
            return self.done[id(value)]
        if id(value) in self.open:  # a cycle: left as it is
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
        return [getattr(value, f.name, None) for f in dataclasses.fields(value)]
    return None


def with_children(value: Any, parts: Sequence[Any]) -> Any:
    """Return a container like `value` with other parts."""
    kind = type(value)
    if isinstance(value, tuple):
        return kind(*parts) if hasattr(value, "_fields") else kind(parts)
    if isinstance(value, dict):
        half = len(parts) // 2
        twin = value.copy()  # keeps the class, a defaultdict's factory, an OrderedDict's order
        twin.clear()
        twin.update(zip(parts[:half], parts[half:], strict=True))
        return twin
    if isinstance(value, list | set | frozenset):
        return kind(parts)
    twin = object.__new__(kind)  # a dataclass: __init__ and __post_init__ do not run a second time
    for state in _instance_state(value):
        object.__setattr__(twin, *state)
    for f, part in zip(dataclasses.fields(value), parts, strict=True):
        object.__setattr__(twin, f.name, part)
    return twin


def _instance_state(value: Any) -> list[tuple[str, Any]]:
    return list(getattr(value, "__dict__", {}).items())
