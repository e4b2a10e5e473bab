"""The options of `@task` and `@flow`, checked where they are written: a mistake is an error before anything runs.

A check takes a value and returns what is kept of it, or raises `Refused` with what is allowed. None stands for
"not given" everywhere, as in Prefect.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypeVar

from runners.caching import CachePolicy

from ..core.triggers import Trigger
from ..errors import UserError

# Prefect's spellings of options that are the same here.
ALIASES = {"persist_result": "persist_results"}

MAX_SHOWN_CHARS = 80
F = TypeVar("F", bound=Callable[..., Any])
Binds = Literal["instance", "class", "nothing"]  # what a method gets as its first argument
Check = Callable[[Any], Any]


class Refused(Exception):
    """A value is not allowed; the text says what is."""


# --- names of options --------------------------------------------------------------------------------


def named(kind: str, options: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Return options by their names here.

    Raises:
        UserError: there is no such option, or one is given by both of its names.
    """
    known = frozenset(known)
    given: dict[str, Any] = {}
    for name, value in options.items():
        here = ALIASES.get(name, name)
        if here not in known:
            near = nearest(name, known)
            raise UserError(f"@{kind} has no option {name!r}." + (f" Did you mean {near!r}?" if near else ""))
        if here in given:
            raise UserError(f"@{kind} was given {here!r} twice: {name!r} is another name of it")
        given[here] = value
    return given


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the option that was meant: one that begins alike, else one spelt alike, else one that has the word."""
    import difflib

    def likeness(option: str) -> float:
        return difflib.SequenceMatcher(None, name, option).ratio()

    options = sorted(known)
    common = min(4, max(2, len(name) - 1))
    alike = [option for option in options if option.startswith(name[:common])]
    alike = alike or difflib.get_close_matches(name, options, 1)
    alike = alike or [option for option in options if len(name) > 2 and name in option]
    return max(alike, key=likeness, default=None)


# --- checking ----------------------------------------------------------------------------------------


def settle(owner: Any, kind: str) -> None:
    """Check a task's or flow's options, and bring them into the form in which they are used.

    Raises:
        UserError: naming the option, its owner, what was given and what is allowed.
    """
    if not callable(owner.fn):
        raise UserError(f"@{kind} was given {shown(owner.fn)}, which is no function")
    for option, check in (_TASK if kind == "task" else _FLOW).items():
        value, default = getattr(owner, option), getattr(type(owner), option, None)
        if value is None:
            setattr(
                owner, option, check(()) if check is _hooks else {} if option == "runner_options" else default
            )
        if value is None or value is default:
            continue
        try:
            kept = check(value)
            if option.endswith("_run_name") and isinstance(kept, str):
                check_template(kept, owner.fn)
        except Refused as refused:
            raise UserError(
                f"{option} of {kind} {owner.name!r} is {shown(value)}; it must be {refused}"
            ) from None
        if kept is not value:
            setattr(owner, option, kept)


def unbound(function: Any) -> tuple[Any, Binds]:
    """Return what is decorated by `staticmethod` or `classmethod`, and what its first argument will be."""
    if isinstance(function, classmethod):
        return function.__func__, "class"
    return (function.__func__, "nothing") if isinstance(function, staticmethod) else (function, "instance")


def shown(value: Any) -> str:
    """Return a value for a message, short whatever it is."""
    try:
        text = repr(value)
    except Exception:  # a user's __repr__ may raise anything
        text = f"a {type(value).__qualname__}"
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def check_template(template: str, fn: Callable[..., Any]) -> None:
    """Refuse a template that names what is no parameter of the function."""
    try:
        parameters = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):  # builtins without a signature
        return
    there = ", ".join(parameters) or "none"
    for field in _fields(template):
        if field not in parameters:
            raise Refused(f"a template of parameters, and {field!r} is no parameter (there are: {there})")


def _fields(template: str) -> list[str]:
    """Return the names in a template's braces, without what is asked of them (`{x.name:>4}`)."""
    from string import Formatter

    found = []
    try:
        for _, field, form, _ in Formatter().parse(template):
            if field is not None:
                found.append(field.partition(".")[0].partition("[")[0])
                found += _fields(form or "")
    except ValueError as error:
        raise Refused(f"a template with parameters in braces ({error})") from None
    return found


# --- kinds of values ---------------------------------------------------------------------------------


def _whole(least: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
            raise Refused(f"a whole number from {least}")
        return int(value.__index__())

    return check


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool | complex) and (
        isinstance(value, int | float) or (hasattr(value, "__float__") and not hasattr(value, "__len__"))
    )


def _above_zero(value: Any) -> float:
    if not _is_number(value) or not value > 0:
        raise Refused("a number of seconds above 0")
    return value if isinstance(value, int | float) else float(value)


def _from_zero(value: Any) -> float:
    if not _is_number(value) or not value >= 0:
        raise Refused("a number from 0")
    return value if isinstance(value, int | float) else float(value)


def _delay(value: Any) -> Any:
    allowed = "a number of seconds from 0, a list of such numbers, or a function of the retry's number"
    try:
        if callable(value):
            return _function(value)
        if isinstance(value, list | tuple):
            return [_from_zero(step) for step in value]
        return _from_zero(value)
    except Refused:
        raise Refused(allowed) from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused("True or False")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("a string")
    return value


def _place(value: Any) -> str:
    if not isinstance(value, str | os.PathLike) or isinstance(found := os.fspath(value), bytes):
        raise Refused("a path or a URL, as a string")
    return found


def _tags(value: Any) -> frozenset[str]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple | set | frozenset) or not all(isinstance(t, str) for t in given):
        raise Refused("a list of strings")
    return frozenset(given)


def _function(value: Any) -> Any:
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise Refused("a function, and not an async one")
    return value


def _run_name(value: Any) -> Any:
    if isinstance(value, str) or (callable(value) and not inspect.iscoroutinefunction(value)):
        return value
    raise Refused("a template with parameters in braces, or a function that returns the name")


class Hooks(list[Callable[..., Any]]):
    """The hooks of a task or flow for one kind of state. Called with a function it adds that: `@fetch.on_failure`."""

    def __call__(self, hook: F) -> F:
        if not callable(hook):
            raise UserError(f"a hook is {shown(hook)}; it must be a function")
        self.append(hook)
        return hook


def _hooks(value: Any) -> Hooks:
    """Take one function for a list of it."""
    given = [value] if callable(value) and not isinstance(value, Hooks) else value
    if not isinstance(given, list | tuple) or not all(callable(hook) for hook in given):
        raise Refused("a function, or a list of functions")
    return Hooks(given)


def _options(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Refused('a mapping of names to values, such as {"priority": 5}')
    return value


def _batch(value: Any) -> Any:
    if isinstance(value, str) and value == "auto":
        return value
    try:
        return _whole(1)(value)
    except Refused:
        raise Refused("'auto' or at least 1, as a whole number") from None


def _expiration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if not _is_number(value) or not value >= 0:
        raise Refused("a timedelta or a number of seconds from 0")
    return value if isinstance(value, int | float) else float(value)


def _trigger(value: Any) -> Any:
    if isinstance(value, Trigger) or (callable(value) and not inspect.iscoroutinefunction(value)):
        return value
    from ..core import triggers

    names = [name for name, found in vars(triggers).items() if isinstance(found, Trigger)]
    near = nearest(value, names) if isinstance(value, str) else None
    example = f"{near or 'all_successful'} (without quotes, from orchestration)"
    raise Refused(
        f"a trigger such as {example}, or a function of the upstream states that says True or False"
    )


def _policy(value: Any) -> CachePolicy:
    if isinstance(value, CachePolicy):
        return value
    from runners import caching

    names = [name for name, found in vars(caching).items() if isinstance(found, CachePolicy)]
    near = nearest(value.upper(), names) if isinstance(value, str) else None
    raise Refused(
        f"a cache policy such as {near or 'INPUTS'} (without quotes, from orchestration); "
        f"there are {', '.join(names)}"
    )


def _serializer(value: Any) -> str:
    from runners.result_format import SERIALIZERS

    if not isinstance(value, str) or value not in SERIALIZERS:
        raise Refused(f"one of {', '.join(map(repr, SERIALIZERS))}")
    return value


_COMMON: dict[str, Check] = {
    "name": _text,
    "description": _text,
    "version": _text,
    "retries": _whole(0),
    "retry_delay_seconds": _delay,
    "timeout_seconds": _above_zero,
    "log_prints": _flag,
    "persist_results": _flag,
    "result_storage": _place,
    "result_serializer": _serializer,
    "on_running": _hooks,
    "on_completion": _hooks,
    "on_failure": _hooks,
    "on_crashed": _hooks,
    "on_cancellation": _hooks,
}
_TASK: dict[str, Check] = {
    **_COMMON,
    "tags": _tags,
    "task_run_name": _run_name,
    "retry_jitter_factor": _from_zero,
    "retry_condition_fn": _function,
    "retries_on_loss": _whole(0),
    "rerun_on_loss": _flag,
    "cache_key_fn": _function,
    "cache_policy": _policy,
    "cache_expiration": _expiration,
    "refresh_cache": _flag,
    "skip_on_upstream_skip": _flag,
    "trigger": _trigger,
    "runner_options": _options,
    "batch": _batch,
    "max_concurrency": _whole(1),
    "on_retry": _hooks,
}
_FLOW: dict[str, Check] = {
    **_COMMON,
    "flow_run_name": _run_name,
    "validate_parameters": _flag,
    "max_concurrent_runs": _whole(1),
    "store": _place,
}
