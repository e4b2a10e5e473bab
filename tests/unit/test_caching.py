"""Cache policies: when two calls share a key, when they must not, and what policies look like."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import pickle
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.caching import (
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CacheCall,
    CachePolicy,
    KeyFunction,
    task_input_hash,
)
from runners.context import RunContext
from runners.errors import SerializationError, UserError
from runners.hashing import fingerprint


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Flags(enum.IntFlag):
    A = 1
    B = 2


Point = namedtuple("Point", "x y")


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    names: frozenset[str]


@dataclasses.dataclass
class Open:
    a: int
    b: Any = None

    @functools.cached_property
    def total(self) -> int:
        return self.a + 1


class Model(pydantic.BaseModel):
    a: int
    b: set[str] = {"x"}


class Names(set):  # type: ignore[type-arg]
    pass


class Fixed(CachePolicy):
    """A policy of a user, without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed)

    def compute_key(self, call: CacheCall) -> str | None:
        return "fixed"


def by_day(context: Any, parameters: dict[str, Any]) -> str:
    return f"{context.task_name}-{context.task.name}-{context.task_run.flow_run_id}-{parameters['day']}"


def make_call(
    task: str = "load", source: str = "def load(): ...", run: str = "r1", **parameters: Any
) -> CacheCall:
    return CacheCall(task, source, parameters, RunContext(run, "jumpy-puppy", "etl", {"day": "mon"}))


def samples() -> list[Any]:
    """Values of the kinds that tasks get, no two of which may share a fingerprint."""
    zone = ZoneInfo("Europe/Paris")
    names = [f"name-{n}" for n in range(20)]
    return [
        *(
            None,
            True,
            False,
            1,
            1.0,
            -1,
            10**5000,
            "1",
            "",
            b"1",
            bytearray(b"1"),
            1j,
            Decimal("1.0"),
            Decimal(1),
        ),
        *([], (), {}, set(), frozenset(), [1], (1,), [[1]], [1, "1"], ["1", 1], [1.0], {"a": 1}, {"a": "1"}),
        *({1: "a"}, {"1": "a"}, {"a": [1]}, {"b": {"a": None}}, set(names), frozenset(names), Names(names)),
        *(
            {frozenset(names): set(names)},
            [{"k": set(names)}],
            OrderedDict(a=1),
            defaultdict(list, a=1),
            Counter("a"),
        ),
        *(
            Point(1, 2),
            Colour.RED,
            Colour.BLUE,
            Flags.A | Flags.B,
            Path("a/b"),
            UUID(int=5),
            range(3),
            slice(1, 2),
        ),
        *(
            dt.date(2026, 1, 2),
            dt.datetime(2026, 1, 2),
            dt.datetime(2026, 1, 2, tzinfo=zone),
            dt.time(1, 2),
            zone,
        ),
        *(
            dt.datetime(2026, 10, 25, 2, 30),
            dt.datetime(2026, 10, 25, 2, 30, fold=1),
            dt.timedelta(1),
            dt.UTC,
        ),
        *(
            Slotted(frozenset(names)),
            Open(1),
            Open(1, names),
            Model(a=1),
            Model(a=1, b={"y"}),
            Open,
            len,
            json_like,
        ),
        *(
            np.arange(3),
            np.arange(3.0),
            np.arange(4).reshape(2, 2),
            np.arange(4),
            np.float32(1),
            np.array(["a", None]),
        ),
        *(np.array([dt.date(2026, 1, 1)], dtype="M8[D]"), np.zeros(2, dtype=[("a", "i4")]), np.array(5)),
        *(
            functools.partial(by_day, 1),
            by_day,
            "x".join,
            lambda: {"a", "b"},
            lambda: {"a", "c"},
            sys,
            ...,
            ValueError("a"),
        ),
    ]


def json_like(n: int = 3) -> dict[str, Any]:
    return {str(i): [i, None, {"deep": i / 2}] for i in range(n)}


def prints() -> list[str]:
    return [fingerprint(value) for value in samples()]


def test_different_values_have_different_fingerprints() -> None:
    """Values that a task could tell apart never share a key."""
    by_print: dict[str, list[Any]] = {}
    for value, found in zip(samples(), prints(), strict=True):
        by_print.setdefault(found, []).append(value)
    assert [values for values in by_print.values() if len(values) > 1] == []


@pytest.mark.parametrize("seed", ["1", "2"])
def test_fingerprints_are_the_same_in_other_processes(seed: str) -> None:
    """Another hash seed, and this module as `__main__`'s neighbour: same keys."""
    code = (
        "import importlib.util as u, sys; s = u.spec_from_file_location(sys.argv[1], sys.argv[2]); "
        "m = u.module_from_spec(s); sys.modules[sys.argv[1]] = m; s.loader.exec_module(m); print(*m.prints())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __name__, __file__],
        env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == prints()


@given(st.dictionaries(st.text() | st.integers(), st.sets(st.text())), st.randoms())
def test_the_order_of_dicts_and_sets_does_not_matter(value: dict[Any, Any], random: Any) -> None:
    """Equal by `==`, equal by key."""
    items = [(key, set(random.sample(sorted(names), len(names)))) for key, names in value.items()]
    random.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(value)


@given(
    st.recursive(
        st.integers() | st.text() | st.floats(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_a_pickled_copy_has_the_same_fingerprint(value: Any) -> None:
    """A value that came from another worker is as good as the original."""
    assert fingerprint(pickle.loads(pickle.dumps(value))) == fingerprint(value)


def test_equal_values_in_different_shape_share_a_fingerprint() -> None:
    """Memory layout, shared parts, looked-at properties and explicitly given defaults are no differences."""
    array = np.arange(12).reshape(3, 4)
    assert fingerprint(array) == fingerprint(np.asfortranarray(array)) == fingerprint(array[::-1][::-1])
    part = [{1}]
    assert fingerprint([part, part]) == fingerprint([[{1}], [{1}]])
    looked_at = Open(1)
    assert looked_at.total == 2
    assert fingerprint(looked_at) == fingerprint(Open(1))
    assert fingerprint(Model(a=1)) == fingerprint(Model(a=1, b={"x"}))


def test_code_counts_and_its_place_does_not() -> None:
    """A function as an argument is what it does, with its defaults and what it closes over."""

    def made(n: int) -> Any:
        return lambda x: x + n

    assert fingerprint(made(1)) == fingerprint(made(1))
    assert fingerprint(made(1)) != fingerprint(made(2))


def test_data_frames_are_hashed_by_content() -> None:
    """How a frame was put together in memory makes no difference, what is in it does."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2026-01-01", None]), "d": [1.0, 2.0]}
    )
    frame["e"] = pd.Categorical(["u", "v"])
    again = pd.concat([frame[["a", "b"]], frame[["c", "d", "e"]]], axis=1)
    assert fingerprint(frame) == fingerprint(again) == fingerprint(pickle.loads(pickle.dumps(frame)))
    others = [
        frame.assign(a=[1, 3]),
        frame.rename(columns={"a": "z"}),
        frame.set_index("a"),
        frame[::-1],
        frame["a"],
    ]
    assert len({fingerprint(other) for other in [frame, *others]}) == 6


def test_data_frames_that_behave_differently_are_told_apart() -> None:
    """Categories that do not occur, their order, types in an index, its step, notes: code can see each of them."""
    pd = pytest.importorskip("pandas")

    def labelled(*categories: str, ordered: bool = False) -> Any:
        return pd.DataFrame({"c": pd.Categorical(["a", "b"], categories or ["a", "b"], ordered)})

    def indexed(index: Any) -> Any:
        return pd.DataFrame({"n": [1, 2]}, index)

    days = pd.date_range("2026-01-31", periods=2, freq="D", tz="Europe/Berlin")
    noted = indexed([1, 2])
    noted.attrs["unit"] = "m"
    frames = [
        labelled(),
        labelled("a", "b", "z"),
        labelled("b", "a"),
        labelled(ordered=True),
        indexed(pd.MultiIndex.from_arrays([[1, 2], ["a", "b"]])),
        indexed(pd.MultiIndex.from_arrays([pd.array([1, 2], "int32"), ["a", "b"]])),
        indexed(pd.MultiIndex.from_arrays([[1, 2], ["a", "b"]], names=["n", "s"])),
        indexed([1, 2]),
        noted,
        indexed(days),
        indexed(pd.DatetimeIndex(list(days))),
        indexed(days.tz_convert("UTC")),
        indexed(days.tz_localize(None)),
        indexed(days.tz_localize(None).to_period("D")),
        indexed(days.tz_localize(None).to_period("M")),
        pd.DataFrame({"n": pd.array([1, None], "Int64")}),
        pd.DataFrame({"n": [1.0, None]}),
    ]
    found = [fingerprint(frame) for frame in frames]
    assert len(set(found)) == len(frames)
    assert found == [fingerprint(pickle.loads(pickle.dumps(frame))) for frame in frames]
    assert found == [fingerprint(frame.copy()) for frame in frames]


def test_inputs_look_at_arguments_only() -> None:
    """Another run or new code with the same arguments is the same call; another task is not."""
    key = INPUTS.compute_key(make_call(x=1, y={"a", "b"}))
    assert key == INPUTS.compute_key(make_call(source="new", run="r2", y={"b", "a"}, x=1))
    assert key != INPUTS.compute_key(make_call(x=2, y={"a", "b"}))
    assert key != INPUTS.compute_key(make_call(task="save", x=1, y={"a", "b"}))
    assert INPUTS.compute_key(make_call()) is None


def test_a_parameter_can_be_left_out() -> None:
    """It may then even be one that has no fingerprint."""
    policy = INPUTS - "lock" - "debug"
    lock = threading.Lock()
    first = policy.compute_key(make_call(x=1, debug=True, lock=lock))
    assert first == policy.compute_key(make_call(x=1, debug=False, lock=lock)) is not None
    assert first != policy.compute_key(make_call(x=2, debug=True, lock=lock))


@pytest.mark.parametrize("value", [threading.Lock(), [{"a": threading.Lock()}], (n for n in range(3))])
def test_an_argument_without_a_fingerprint_is_named_with_the_cure(value: Any) -> None:
    """Locks, connections, generators: the error says which argument and what to write."""
    with pytest.raises(
        SerializationError, match=r"argument 'conn' of task 'load'.*INPUTS - 'conn'.*cache_key_fn"
    ):
        INPUTS.compute_key(make_call(x=1, conn=value))


def test_what_contains_itself_is_an_error_and_not_a_crash() -> None:
    """Endless nesting has no fingerprint."""
    endless: list[Any] = []
    endless.append([endless])
    with pytest.raises(SerializationError, match="contains itself"):
        INPUTS.compute_key(make_call(x=endless))


def test_the_other_policies_look_at_one_thing_each() -> None:
    """The source, the run, the flow's parameters."""
    call = make_call(x=1)
    for policy, other in [
        (TASK_SOURCE, dataclasses.replace(call, source="new")),
        (RUN_ID, make_call(run="r2", x=1)),
        (FLOW_PARAMETERS, dataclasses.replace(call, run=RunContext("r1", "n", "etl", {"day": "tue"}))),
    ]:
        assert policy.compute_key(call) == policy.compute_key(make_call(x=2))
        assert policy.compute_key(call) != policy.compute_key(other)
    assert TASK_SOURCE.compute_key(make_call(source="")) is None
    assert FLOW_PARAMETERS.compute_key(dataclasses.replace(call, run=RunContext("r1", "n", "etl"))) is None
    lock = RunContext("r1", "n", "etl", {"lock": threading.Lock()})
    with pytest.raises(
        SerializationError, match=r"parameter 'lock' of flow 'etl'.*Leave FLOW_PARAMETERS out"
    ):
        FLOW_PARAMETERS.compute_key(dataclasses.replace(call, run=lock))


def test_a_sum_changes_with_each_of_its_parts() -> None:
    """And parts that have nothing to say are left out."""
    policy = INPUTS + TASK_SOURCE
    keys = {policy.compute_key(c) for c in (make_call(x=1), make_call(x=2), make_call(source="new", x=1))}
    assert len(keys) == 3
    assert policy.compute_key(make_call()) is not None
    assert policy.compute_key(make_call(source="")) is None


def test_no_cache_adds_nothing() -> None:
    """As in Prefect: NO_CACHE + x is x."""
    assert NO_CACHE.compute_key(make_call(x=1)) is None
    assert NO_CACHE + INPUTS == INPUTS + NO_CACHE == INPUTS
    assert NO_CACHE + NO_CACHE == NO_CACHE
    assert NO_CACHE + INPUTS + TASK_SOURCE == INPUTS + TASK_SOURCE


def test_policies_are_values() -> None:
    """They compare by what they mean, survive pickling, and cannot be mixed with other things."""
    assert INPUTS + TASK_SOURCE + RUN_ID == RUN_ID + (INPUTS + TASK_SOURCE)
    assert (INPUTS - "a") + (INPUTS - "b") == INPUTS - "b" - "a"
    assert INPUTS + TASK_SOURCE - "a" == (INPUTS - "a") + TASK_SOURCE
    assert TASK_SOURCE - "a" == TASK_SOURCE
    assert INPUTS + INPUTS == INPUTS
    assert INPUTS != INPUTS - "a"
    assert hash(INPUTS + RUN_ID) == hash(RUN_ID + INPUTS)
    for policy in (NO_CACHE, INPUTS - "a", INPUTS + RUN_ID + FLOW_PARAMETERS, KeyFunction(by_day) + INPUTS):
        assert pickle.loads(pickle.dumps(policy)) == policy
    with pytest.raises(TypeError, match="INPUTS - 'debug'"):
        INPUTS - INPUTS  # type: ignore[operator]
    with pytest.raises(TypeError):
        INPUTS + "x"  # type: ignore[operator]


def test_policies_of_users_join_in() -> None:
    """A subclass needs `compute_key` and nothing else."""
    policy = INPUTS + Fixed()
    assert policy == Fixed() + INPUTS
    assert policy.compute_key(make_call(x=1)) != INPUTS.compute_key(make_call(x=1))
    assert Fixed().compute_key(make_call()) == "fixed"


def test_reprs_read_like_what_was_written() -> None:
    """An error or a record can show the policy."""
    assert repr(INPUTS - "b" - "a" + TASK_SOURCE + RUN_ID) == "INPUTS - 'a' - 'b' + TASK_SOURCE + RUN_ID"
    assert repr(NO_CACHE) == "NO_CACHE"
    assert repr(KeyFunction(by_day) + FLOW_PARAMETERS) == "KeyFunction(by_day) + FLOW_PARAMETERS"


def test_a_key_function_answers_as_it_stands() -> None:
    """Its key is used verbatim; None runs without the cache; anything else is the user's mistake."""
    assert KeyFunction(by_day).compute_key(make_call(day="mon")) == "load-load-r1-mon"
    assert KeyFunction(lambda c, p: None).compute_key(make_call()) is None
    with pytest.raises(UserError, match="cache_key_fn of task 'load' returned a int"):
        KeyFunction(lambda c, p: 1).compute_key(make_call())  # type: ignore[arg-type, return-value]


def test_task_input_hash_is_a_ready_made_key_function() -> None:
    """The task, its code and its arguments decide."""
    policy = KeyFunction(task_input_hash)
    key = policy.compute_key(make_call(x=1))
    assert key == policy.compute_key(make_call(run="r2", x=1))
    others = [make_call(x=2), make_call(source="new", x=1), make_call(task="save", x=1)]
    assert key not in [policy.compute_key(call) for call in others]
    with pytest.raises(SerializationError, match=r"argument 'x' of task 'load'.*leaves 'x' out"):
        policy.compute_key(make_call(x=threading.Lock()))
