"""Parameters of flows: bound, coerced and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydantic
import pytest

from orchestration import flow, task
from orchestration.errors import ParameterError
from runners import SequentialTaskRunner

SEQUENTIAL = SequentialTaskRunner()


class Model(pydantic.BaseModel):
    n: int
    name: str = "x"


@dataclass
class Plain:
    n: int


@task
def same(x: Any) -> Any:
    return x


def test_coercion(record: Any) -> None:
    """Values are coerced to their type hints, as pydantic does it."""

    @flow(task_runner=SEQUENTIAL)
    def main(n: int, day: date, path: Path, model: Model, items: list[int], free=None) -> Any:  # type: ignore[no-untyped-def]
        return n, day, path, model, items, free

    assert main("5", "2026-01-02", "a/b", {"n": "3"}, ("1", 2), free="5") == (
        5,
        date(2026, 1, 2),
        Path("a/b"),
        Model(n=3),
        [1, 2],
        "5",
    )
    shown = record.run().parameters
    assert shown["n"] == 5
    assert shown["day"] == "2026-01-02"
    assert shown["model"] == {"n": 3, "name": "x"}


def test_bad_parameters(record: Any) -> None:
    """Bad parameters are one error that names all of them; nothing runs and nothing is recorded."""
    ran: list[int] = []

    @flow(task_runner=SEQUENTIAL)
    def main(n: int, m: int = 1) -> None:
        ran.append(1)

    with pytest.raises(ParameterError, match=r"(?s)flow 'main'.*n: .*integer.*'five'.*m: "):
        main("five", m="six")
    with pytest.raises(ParameterError, match="missing a required argument: 'n'"):
        main()
    with pytest.raises(ParameterError, match="unexpected keyword argument 'k'"):
        main(1, k=2)
    assert not ran
    assert not record.runs()


def test_without_validation() -> None:
    """`validate_parameters=False` takes values as they are."""

    @flow(task_runner=SEQUENTIAL, validate_parameters=False)
    def main(n: int) -> Any:
        return n

    assert main("five") == "five"


def test_all_kinds_of_parameters() -> None:
    """Positional-only, keyword-only, *args, **kwargs, defaults and names that pydantic uses all work."""

    @flow(task_runner=SEQUENTIAL)
    def main(a: int, /, b: int = 2, *rest: Any, json: str = "j", copy: int = 0, **more: Any) -> Any:
        return a, b, rest, json, copy, more

    assert main("1") == (1, 2, (), "j", 0, {})
    assert main(1, 2, 3, 4, json="k", copy="5", x=6, schema=7) == (
        1,
        2,
        (3, 4),
        "k",
        5,
        {"x": 6, "schema": 7},
    )


def test_objects_are_not_copied() -> None:
    """Instances of classes that pydantic does not know are handed over as they are."""

    class Thing:
        pass

    thing, plain = Thing(), Plain(3)

    @flow(task_runner=SEQUENTIAL)
    def main(thing: Thing, plain: Plain, anything: Any) -> Any:
        return thing, plain, anything

    got = main(thing, plain, thing)
    assert got[0] is thing
    assert got[1] == plain
    assert got[2] is thing


def test_task_calls_are_checked_at_once() -> None:
    """A call that does not fit a task's signature is an error where it is made."""

    @flow(task_runner=SEQUENTIAL)
    def main() -> None:
        with pytest.raises(ParameterError, match=r"task 'same'.*missing a required argument"):
            same.submit()
        with pytest.raises(ParameterError, match="too many positional"):
            same(1, 2)
        with pytest.raises(ParameterError, match="unexpected keyword argument 'y'"):
            same.map([1], y=2)

    main()


def test_parameters_of_any_number() -> None:
    """The hint of `*args` and `**kwargs` is of each of them, which is coerced or refused by it."""

    @flow
    def main(*args: int, **kwargs: float) -> Any:
        return args, kwargs

    assert repr(main("1", 2, a="3")) == "((1, 2), {'a': 3.0})"
    assert main() == ((), {})
    with pytest.raises(ParameterError, match=r"args\.1: .*\n.*kwargs\.a: "):
        main(1, "x", a="y")
