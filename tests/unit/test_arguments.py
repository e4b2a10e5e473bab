"""Arguments: putting results where refs stand, without losing or changing anything else."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.arguments import (
    Aligned,
    Arguments,
    Column,
    Element,
    Inputs,
    Ref,
    Static,
    children,
    fill,
    rebuild,
    resolve,
)
from runners.errors import InternalError, ResultLostError
from runners.storage import MISSING

Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Frozen:
    """Counts how often it was made by its constructor."""

    value: Any
    label: str = "made"
    made: list[int] = field(default_factory=list, compare=False)

    def __post_init__(self) -> None:
        self.made.append(1)


@dataclass(slots=True)
class Slotted:
    """A dataclass without a `__dict__`."""

    value: Any
    other: int = 1


class Named(list[Any]):
    """A list with state and a constructor of its own."""

    def __init__(self, name: str, values: Any) -> None:
        super().__init__(values)
        self.name = name


class Color(enum.Enum):
    """A leaf that looks like a container to some."""

    RED = (1, 2)


atoms = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False)
hashable = atoms | st.tuples(atoms, atoms)
refs = st.builds(Ref, st.just(1), st.integers(0, 4))


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of all kinds of containers."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.builds(Pair, inner, inner),
            st.dictionaries(hashable, inner, max_size=3),
            st.builds(lambda d: defaultdict(list, d), st.dictionaries(hashable, inner, max_size=3)),
            st.builds(lambda d: OrderedDict(d), st.dictionaries(hashable, inner, max_size=3)),
            st.builds(Frozen, inner),
            st.builds(Slotted, inner),
            st.sets(hashable, max_size=3),
            st.frozensets(hashable, max_size=3),
        ),
        max_leaves=12,
    )


def replaced(value: Any) -> Any:
    """The obvious recursive version of `fill`, where ref i has the value ("r", i)."""
    if isinstance(value, Ref):
        return "r", value.index
    if isinstance(value, Pair):
        return Pair(*map(replaced, value))
    if isinstance(value, list | tuple):
        return type(value)(map(replaced, value))
    if isinstance(value, dict):
        twin = value.copy()
        twin.update({key: replaced(part) for key, part in value.items()})
        return twin
    if isinstance(value, Frozen):
        return Frozen(replaced(value.value))
    if isinstance(value, Slotted):
        return Slotted(replaced(value.value))
    return value


@pytest.fixture
def inputs() -> Inputs:
    """Five results of node 1: ("r", index)."""
    made = Inputs()
    made.add(1, range(5), [("r", index) for index in range(5)])
    return made


@given(nested(atoms))
def test_what_has_no_refs_is_handed_over_as_it_is(value: Any) -> None:
    """Nothing is copied where nothing changes."""
    assert rebuild(value, lambda leaf: leaf) is value


@given(nested(atoms | refs))
def test_fill_is_the_recursive_definition(value: Any) -> None:
    """The walk with an explicit stack gives what the obvious recursion gives, of the same types."""
    made = Inputs()
    made.add(1, range(5), [("r", index) for index in range(5)])
    filled, expected = fill(value, made), replaced(value)
    assert filled == expected
    assert type(filled) is type(expected)


def test_containers_keep_what_they_are(inputs: Inputs) -> None:
    """Factories, orders, names and other state survive; constructors do not run again."""
    named = Named("n", [Ref(1, 0)])
    factory = defaultdict(list, {"a": Ref(1, 1)})
    frozen = Frozen(Ref(1, 2), "x")
    filled = fill([named, factory, frozen, Slotted(Ref(1, 3), 7), Counter(a=2)], inputs)
    assert (type(filled[0]), filled[0].name, list(filled[0])) == (Named, "n", [("r", 0)])
    assert filled[1]["new"] == []
    assert (filled[2].value, filled[2].label, frozen.made) == (("r", 2), "x", [1])
    assert filled[3] == Slotted(("r", 3), 7)
    assert type(filled[4]) is Counter


def test_the_template_is_not_changed(inputs: Inputs) -> None:
    """A template serves many items."""
    template = {"a": [Ref(1, 0)], "b": Frozen(Ref(1, 1))}
    fill(template, inputs)
    assert template == {"a": [Ref(1, 0)], "b": Frozen(Ref(1, 1))}


def test_shared_parts_stay_shared(inputs: Inputs) -> None:
    """One object in two places is one object in two places afterwards."""
    part = [Ref(1, 0)]
    filled = fill([part, part], inputs)
    assert filled[0] is filled[1]


def test_cycles_end(inputs: Inputs) -> None:
    """A container that contains itself is walked once."""
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert fill(cycle, inputs) is cycle
    with_ref: list[Any] = [Ref(1, 0)]
    with_ref.append(with_ref)
    assert fill(with_ref, inputs)[0] == ("r", 0)


def test_deep_nesting_needs_no_stack(inputs: Inputs) -> None:
    """100,000 levels are far beyond the recursion limit."""
    value: Any = Ref(1, 0)
    for _ in range(100_000):
        value = [value]
    filled = fill(value, inputs)
    depth = 0
    while isinstance(filled, list):
        (filled,) = filled
        depth += 1
    assert (depth, filled) == (100_000, ("r", 0))


def test_unfinished_and_lazy_fields() -> None:
    """Fields without a value stay without; properties that make new objects confuse nothing."""

    @dataclass
    class Lazy:
        value: Any
        unset: int = field(init=False)

        def __getattribute__(self, name: str) -> Any:
            got = object.__getattribute__(self, name)
            return list(got) if name == "value" else got

    many = [Lazy([n]) for n in range(100)]
    rebuilt = rebuild(many, lambda leaf: -leaf if isinstance(leaf, int) else leaf)
    assert [lazy.value for lazy in rebuilt] == [[-n] for n in range(100)]
    assert not hasattr(rebuilt[1], "unset")


@pytest.mark.parametrize("leaf", [Color.RED, "ab", b"ab", range(3), {1: 2}.items(), Frozen, object()])
def test_leaves(leaf: Any) -> None:
    """What is no container is not looked into."""
    assert children(leaf) is None


def test_sources(inputs: Inputs) -> None:
    """Each kind of source has its value for each position."""
    assert resolve(Static(7), 3, inputs) == 7
    assert resolve(Static([Ref(1, 2)], template=True), 3, inputs) == [("r", 2)]
    assert resolve(Column(["a", "b"]), 1, inputs) == "b"
    assert resolve(Column([0, [Ref(1, 4)]], template=True), 1, inputs) == [("r", 4)]
    assert resolve(Aligned(1, [4, 3]), 1, inputs) == ("r", 3)
    assert resolve(Element(Ref(1, 2), [1, 0]), 1, inputs) == "r"


def test_bind(inputs: Inputs) -> None:
    """Positional and keyword arguments are bound for a position."""
    arguments = Arguments((Static(1), Column([2, 3])), {"key": Aligned(1, [0, 1])})
    assert arguments.bind(1, inputs) == ([1, 3], {"key": ("r", 1)})
    assert Arguments().bind(0, inputs) == ([], {})


def test_all_results_of_a_node(inputs: Inputs) -> None:
    """A ref without indices takes what was handed over, in the order of the items; never the same list twice."""
    inputs.add(2, [5, 3], ["five", "three"])
    assert inputs.of(Ref(2)) == ["three", "five"]
    assert inputs.of(Ref(2)) is not inputs.of(Ref(2))
    assert inputs.of(Ref(2, indices=[5])) == ["five"]
    assert inputs.of(Ref(3)) == []


@pytest.mark.parametrize("ref", [Ref(1, 9), Ref(9, 0), Ref(1, indices=[0, 9]), Ref(2), Ref(2, 0)])
def test_missing_results(inputs: Inputs, ref: Ref) -> None:
    """A result that is not there is an error of its own kind and never a value."""
    inputs.add(2, [0, 1], [MISSING, "there"])
    with pytest.raises(ResultLostError):
        inputs.of(ref)


def test_arguments_that_are_not_cut_yet(inputs: Inputs) -> None:
    """Arguments of a whole node cannot be bound for a batch."""
    with pytest.raises(InternalError):
        resolve(Aligned(1, None), 0, inputs)
