"""Secrets among a flow's parameters: pydantic's `SecretStr`, `SecretBytes` and `Secret`, also inside other values.

They are never recorded. Who resumes or retries such a run gives them again.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import cloudpickle


class Withheld:
    """Stands in a record for a parameter that has a secret in it."""

    def __repr__(self) -> str:
        return "a secret that was not recorded"


def without_secrets(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with `Withheld` in the place of each that has a secret in it."""
    return {name: Withheld() if has_secret(value) else value for name, value in parameters.items()}


def withheld(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the parameters that were not recorded."""
    return [name for name, value in parameters.items() if isinstance(value, Withheld)]


def has_secret(value: Any) -> bool:
    """Whether a secret would be in a value's pickle."""
    kinds = _kinds()
    if not kinds:
        return False
    try:
        _Search(kinds).dump(value)
    except _FoundError:
        return True
    except Exception:  # it cannot be pickled, so it is not recorded either
        return False
    return False


def _kinds() -> tuple[type, ...]:
    """Return the types of secrets; none as long as nobody has loaded pydantic's types."""
    types = sys.modules.get("pydantic.types")
    found = (getattr(types, name, None) for name in ("SecretStr", "SecretBytes", "Secret"))
    return tuple(kind for kind in found if isinstance(kind, type))


class _FoundError(Exception):
    pass


class _Search(cloudpickle.Pickler):  # type: ignore[misc]
    """Goes through all that pickling goes through."""

    def __init__(self, kinds: tuple[type, ...]) -> None:
        super().__init__(io.BytesIO(), protocol=5, buffer_callback=lambda _: None)
        self._kinds = kinds

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, self._kinds):
            raise _FoundError
        return super().reducer_override(obj)
