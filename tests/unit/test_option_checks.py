"""The options of tasks and flows: what is refused where it is written, and in which words."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration import INPUTS, all_finished, exponential_backoff, flow, task
from orchestration.errors import UserError
from runners import errors


def work(x: int) -> int:
    return x


async def later(*_: Any) -> bool:
    return True


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no")


TASK_OPTIONS: list[tuple[str, Any, str]] = [
    ("retries", 2.5, "2.5; it must be a whole number from 0"),
    ("retries", True, "True; it must be a whole number from 0"),
    ("retries", -1, "a whole number from 0"),
    ("retries_on_loss", "3", "'3'; it must be a whole number from 0"),
    ("retry_delay_seconds", "soon", "'soon'; it must be a number of seconds from 0, a list of such"),
    ("retry_delay_seconds", [1, "x"], "a list of such numbers"),
    ("retry_delay_seconds", -1, "a number of seconds from 0"),
    ("retry_delay_seconds", later, "a function of the retry's number"),
    ("retry_jitter_factor", "a", "'a'; it must be a number from 0"),
    ("retry_jitter_factor", float("nan"), "a number from 0"),
    ("retry_condition_fn", "never", "a function, and not an async one"),
    ("retry_condition_fn", later, "a function, and not an async one"),
    ("timeout_seconds", "a", "'a'; it must be a number of seconds above 0"),
    ("timeout_seconds", 0, "above 0"),
    ("timeout_seconds", True, "above 0"),
    ("tags", 5, "5; it must be a list of strings"),
    ("tags", [5], "a list of strings"),
    ("batch", "big", "'auto' or at least 1"),
    ("batch", 0, "'auto' or at least 1"),
    ("runner_options", "gpu", "a mapping of names to values"),
    ("runner_options", {1: 2}, "a mapping of names to values"),
    ("cache_expiration", "1h", "a timedelta or a number of seconds"),
    ("cache_policy", "INPUTS", "a cache policy such as INPUTS (without quotes"),
    ("cache_key_fn", "key", "a function"),
    ("trigger", "all", "a trigger such as all_"),
    ("trigger", "any_failed", "a trigger such as any_failed (without quotes"),
    ("trigger", 5, "a trigger such as all_successful"),
    ("trigger", later, "a trigger such as all_successful"),
    ("result_serializer", "pickle", "one of 'cloudpickle', 'json', 'msgpack'"),
    ("result_storage", 5, "a path or a URL"),
    ("on_failure", "print", "a function, or a list of functions"),
    ("on_retry", [print, 5], "a function, or a list of functions"),
    ("task_run_name", "{nope}", "'nope' is no parameter (there are: x)"),
    ("task_run_name", "{x:{wide}}", "'wide' is no parameter"),
    ("task_run_name", "{}", "'' is no parameter"),
    ("task_run_name", "{x", "a template with parameters in braces"),
    ("task_run_name", 5, "a template with parameters in braces, or a function"),
    ("log_prints", 1, "True or False"),
    ("refresh_cache", "no", "True or False"),
    ("name", 5, "a string"),
    ("batch", Odd(), "a Odd; it must be 'auto'"),
]

FLOW_OPTIONS: list[tuple[str, Any, str]] = [
    ("retries", 2.5, "a whole number from 0"),
    ("retry_delay_seconds", "soon", "a number of seconds from 0"),
    ("timeout_seconds", "a", "above 0"),
    ("result_serializer", "pickle", "one of 'cloudpickle'"),
    ("flow_run_name", "{nope}", "'nope' is no parameter (there are: x)"),
    ("on_completion", 5, "a function, or a list of functions"),
    ("validate_parameters", "yes", "True or False"),
    ("store", 5, "a path or a URL"),
]


@pytest.mark.parametrize(("option", "value", "allowed"), TASK_OPTIONS)
def test_task_options_are_checked_where_they_are_written(option: str, value: Any, allowed: str) -> None:
    """The error names option, task, what was given and what is allowed, in the decorator and in with_options."""
    words = rf"^{option} of task .* is .*{re.escape(allowed)}"
    with pytest.raises(UserError, match=words):
        task(**{option: value})(work)
    with pytest.raises(UserError, match=words):
        task(work).with_options(**{option: value})


@pytest.mark.parametrize(("option", "value", "allowed"), FLOW_OPTIONS)
def test_flow_options_are_checked_where_they_are_written(option: str, value: Any, allowed: str) -> None:
    """Flows refuse the same mistakes as tasks."""
    words = rf"^{option} of flow 'work' is .*{re.escape(allowed)}"
    with pytest.raises(UserError, match=words):
        flow(**{option: value})(work)
    with pytest.raises(UserError, match=words):
        flow(work).with_options(**{option: value})


def test_what_options_may_be() -> None:
    """Every form that the documentation allows passes, and is kept in the form in which it is used."""
    made = task(
        tags="one",
        retries=2,
        retry_delay_seconds=(1, 0.5),
        retry_jitter_factor=0,
        timeout_seconds=0.5,
        cache_expiration=timedelta(hours=1),
        cache_policy=INPUTS - "x",
        trigger=all_finished,
        batch=5,
        runner_options={"priority": 5},
        result_storage=Path("/tmp/results"),
        task_run_name="{x.real:>4} {x!r} {{braces}} {x[0]}",
        on_failure=print,
        on_retry=[print, print],
    )(work)
    assert made.tags == {"one"}
    assert made.retry_delay_seconds == [1, 0.5]
    assert made.result_storage == "/tmp/results"
    assert made.on_failure == [print]
    assert made.on_retry == [print, print]
    assert task(retry_delay_seconds=exponential_backoff(backoff_factor=3))(work).policy({}).delay(2) == 6
    assert (
        task(trigger=lambda states: True, batch="auto", retry_delay_seconds=lambda n: n)(work).batch == "auto"
    )


def test_none_means_not_given() -> None:
    """Flows written for Prefect pass None for what they do not decide."""
    made = task(name=None, retries=None, tags=None, on_failure=None, runner_options=None, log_prints=None)(
        work
    )
    assert (made.name, made.retries, made.tags, made.on_failure) == ("work", 0, frozenset(), [])
    assert made.runner_options == {}
    assert flow(name=None, retries=None, persist_result=None)(work).persist_results is False


def test_templates_of_methods_and_builtins() -> None:
    """A method's template may name self; where there is no signature there is nothing to check."""

    class Shop:
        @task(task_run_name="{self.city} {x}")
        def sell(self, x: int) -> int:
            return x

    assert Shop().sell.name == "sell"
    assert task(task_run_name="{anything}")(max).name == "max"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("retry", "retries"),
        ("retry_delay", "retry_delay_seconds"),
        ("timeout", "timeout_seconds"),
        ("tag", "tags"),
        ("num_retries", "retries"),
        ("expiration", "cache_expiration"),
        ("on_fail", "on_failure"),
        ("persist", "persist_results"),
        ("retires", "retries"),
    ],
)
def test_unknown_options_name_the_one_that_was_meant(given: str, meant: str) -> None:
    """What begins alike is nearer than what is merely spelt alike."""
    with pytest.raises(UserError, match=f"no option '{given}'. Did you mean '{meant}'"):
        task(**{given: 3})(work)


def test_prefects_spelling_of_persist_results() -> None:
    """A flow from Prefect runs as it is; giving both spellings is an error."""
    assert task(persist_result=True)(work).persist_results is True
    assert flow(work).with_options(persist_result=True).persist_results is True
    with pytest.raises(UserError, match="twice"):
        task(persist_result=True, persist_results=False)(work)


def test_unknown_result_storage_is_refused_when_the_task_is_submitted() -> None:
    """No task run has to fail for it, and nobody has to look for the task."""
    lost = task(result_storage="nosuch://x", persist_results=True)(work)
    ran: list[int] = []

    @flow(store="memory", task_runner="sequential")
    def main() -> None:
        with pytest.raises(UserError, match=r"task 'work': result_storage 'nosuch://x': Protocol not known"):
            lost.submit(1)
        ran.append(1)

    main()
    assert ran


def test_unknown_result_storage_of_a_flow_is_refused_at_its_start() -> None:
    """The flow function does not run."""

    @flow(store="memory", result_storage="nosuch://x")
    def main() -> None:
        raise AssertionError("it ran")

    with pytest.raises(errors.UserError, match="Protocol not known: nosuch"):
        main()
