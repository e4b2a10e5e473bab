"""Text and JSON as databases keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any


def clean(text: str) -> str:
    """Return text that every database can hold.

    Names of files on disk, and so messages, may carry lone surrogates, which UTF-8 cannot say. PostgreSQL's
    texts hold no NUL.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\0", "\\x00") if "\0" in text else text


_encode = json.JSONEncoder(default=repr, separators=(",", ":")).encode


def to_json(value: Any) -> str:
    """Return JSON; what JSON cannot say is there by its repr, for people."""
    return _encode(value)


def numbers_to_json(numbers: Iterable[float]) -> str:
    return repr(list(numbers))  # the same, in a part of the time: several per append


@lru_cache(1024)  # those of single task runs are nearly all the same
def numbers_of(data: str) -> tuple[int, ...]:
    """Return counts, as `numbers_to_json` wrote them."""
    return tuple(json.loads(data))


def keyed(data: str | None) -> dict[int, Any]:
    """Return a map by entry number, as `to_json` wrote it."""
    return {int(key): value for key, value in json.loads(data).items()} if data else {}


def plain(value: Mapping[str, Any]) -> str:
    try:
        return to_json(dict(value))
    except (TypeError, ValueError):  # keys that are no names, or a structure that holds itself
        return to_json({str(key): repr(item) for key, item in value.items()})
