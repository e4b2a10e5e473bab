"""Parameters that need no coercion cost no library, and are treated the same; run names."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from orchestration.api.parameters import jsonable, validate
from orchestration.api.run_names import random_name
from orchestration.errors import ParameterError


def sample(n: int, x: float, label: str, flag: bool, rest: Any, plain, names: list[int]) -> None:  # type: ignore[no-untyped-def]
    """A signature with all kinds of hints."""


def test_values_that_fit_are_handed_on() -> None:
    given = {"n": 1, "x": 2.0, "label": "a", "flag": True, "rest": object(), "plain": [1]}
    assert validate(sample, "f", given) == given


@pytest.mark.parametrize(
    ("name", "given", "made"), [("n", "3", 3), ("x", 2, 2.0), ("names", ("1", 2), [1, 2]), ("n", True, 1)]
)
def test_others_are_coerced(name: str, given: Any, made: Any) -> None:
    def one(n: int = 0, x: float = 0.0, names: list[int] = []) -> None:  # noqa: B006
        """Fits but for one."""

    parameters = {"n": 1, "x": 2.0, "names": [], name: given}
    assert validate(one, "f", parameters)[name] == made
    with pytest.raises(ParameterError, match="n: Input should be a valid integer"):
        validate(one, "f", {"n": "x", "x": 1.0, "names": []})


def test_what_people_see_of_parameters() -> None:
    """JSON values as copies, others as pydantic writes them, the rest by their repr."""
    mutable = {"a": [1, None, 0.5]}
    shown = jsonable({"m": mutable, "t": (1, 2), "s": {3}, "o": sample, "nan": float("nan"), "k": {1: 2}})
    assert shown["m"] == mutable
    assert shown["m"] is not mutable
    assert (shown["t"], shown["s"], shown["nan"], shown["k"]) == ([1, 2], [3], None, {"1": 2})
    assert "sample" in shown["o"]


def test_a_value_that_contains_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert jsonable({"e": endless}) == {"e": "[[...]]"}


def test_a_plain_flow_imports_no_pydantic() -> None:
    """A quarter of the time of a hello flow."""
    code = (
        "import sys\nfrom orchestration import flow\n\n"
        "def hello(n: int = 3) -> int:\n    return n\n\n"
        "assert flow(store='memory')(hello)(4) == 4\nassert 'pydantic' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_names_are_two_words() -> None:
    names = {random_name() for _ in range(100)}
    assert len(names) > 90
    assert all(name.count("-") == 1 and name.islower() for name in names)
