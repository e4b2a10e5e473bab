"""Parameters of flows: bound to the signature, and coerced to its types before anything runs."""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..errors import ParameterError


def bind(
    fn: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the call's parameters by name, defaults included.

    Raises:
        ParameterError: they do not fit the signature.
    """
    signature = inspect.signature(fn)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        problem = unknown_keyword(signature, kwargs) or error
        raise ParameterError(f"flow {name!r} {signature}: {problem}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def unknown_keyword(signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str | None:
    """Name a keyword that a signature does not take. `bind` names what is missing first, which may be its typo."""
    takes = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return None
    unknown = [repr(name) for name in kwargs if name not in takes]
    return f"got an unexpected keyword argument {' and '.join(unknown)}" if unknown else None


def validate(fn: Callable[..., Any], name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters coerced to the types of the signature, as pydantic does it.

    Raises:
        ParameterError: one of them does not fit; all that do not are named.
    """
    hints = _hints(fn)
    if all(_fits(hints.get(key, Any), value) for key, value in parameters.items()):
        return dict(parameters)
    model = _model(fn)
    import pydantic

    fields = {_alias(key): value for key, value in parameters.items()}
    try:
        made = model.model_validate(fields)
    except pydantic.ValidationError as error:
        lines = []
        for e in error.errors():
            secret = "Secret" in str(hints.get(str(e["loc"][0]).removeprefix("p_")))
            given = "a secret, which is not shown" if secret else _short(e.get("input"))
            where = ".".join(str(part) for part in e["loc"]).removeprefix("p_")
            lines.append(f"  {where}: {e['msg']} (given {given})")
        raise ParameterError(f"parameters of flow {name!r} do not fit:\n" + "\n".join(lines)) from None
    return {key: getattr(made, _alias(key)) for key in parameters}


def call_arguments(fn: Callable[..., Any], parameters: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return (args, kwargs) that pass the parameters, whatever kinds they are."""
    bound = inspect.BoundArguments(inspect.signature(fn), parameters)  # type: ignore[arg-type]
    return list(bound.args), dict(bound.kwargs)


def jsonable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as JSON values for people; what JSON cannot say is shown by its repr."""
    shown = {}
    for name, value in parameters.items():
        try:
            if _is_json(value):
                shown[name] = json.loads(json.dumps(value))  # a copy: the flow may change its own
                continue
            import pydantic_core

            shown[name] = json.loads(pydantic_core.to_json(value, inf_nan_mode="null"))
        except Exception:
            shown[name] = _short(value, 200)
    return shown


@lru_cache(maxsize=256)
def _hints(fn: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the type hints of the parameters; Any for what only type checkers can see."""
    try:
        hints = inspect.get_annotations(fn, eval_str=True)
    except Exception:
        hints = inspect.get_annotations(fn)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        hint: Any = hints.get(name, Any)
        if isinstance(hint, str) or hint is Any or "Unpack[" in str(hint):
            found[name] = Any
        elif parameter.kind is parameter.VAR_POSITIONAL:  # the hint is of each
            found[name] = types.GenericAlias(tuple, (hint, ...))
        else:
            many = parameter.kind is parameter.VAR_KEYWORD
            found[name] = types.GenericAlias(dict, (str, hint)) if many else hint
    return found


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value plainly is what its hint says: then there is nothing to coerce, nor a library to import."""
    return hint is Any or (type(value) is hint and any(hint is plain for plain in _PLAIN))


_PLAIN = (str, int, float, bool, bytes)


def _is_json(value: Any) -> bool:
    """Whether a value is one of JSON already, types exactly."""
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(_is_json, value))
    return kind is dict and all(type(key) is str and _is_json(part) for key, part in value.items())


@lru_cache(maxsize=256)
def _model(fn: Callable[..., Any]) -> Any:
    """Return a model with the parameters as fields."""
    import pydantic

    fields: dict[str, Any] = {_alias(name): (hint, ...) for name, hint in _hints(fn).items()}
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    return pydantic.create_model(f"{getattr(fn, '__name__', 'flow')}_parameters", __config__=config, **fields)


def schema(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of a function's parameters, defaults included where they are plain data.

    Raises:
        pydantic.PydanticUserError: a type has no JSON form.
    """
    import pydantic

    given = inspect.signature(fn).parameters
    fields: dict[str, Any] = {}
    for name, hint in _hints(fn).items():
        default = given[name].default
        plain = default if default is None or _is_json(default) else None
        wanted = ... if default is inspect.Parameter.empty else plain
        fields[_alias(name)] = (hint, pydantic.Field(wanted, alias=name))
    model = pydantic.create_model(getattr(fn, "__name__", "flow"), **fields)
    return model.model_json_schema()


def _alias(name: str) -> str:
    """Keep users' names apart from pydantic's own, such as `json` or `copy`."""
    return f"p_{name}"


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
