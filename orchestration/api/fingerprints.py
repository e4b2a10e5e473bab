"""Whether a node is still the one whose results were stored: a digest of its code and arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from runners.arguments import Aligned, Column, Element, Ref, Source, Static, rebuild
from runners.body import TaskBody
from runners.hashing import fingerprint

if TYPE_CHECKING:
    from .requests import NodeRequest


def fingerprint_of(request: NodeRequest, body: TaskBody, path_of: Callable[[int], str]) -> str:
    """Return a digest that is equal in another process for equal code and arguments.

    Upstream results count by the path of their node. An argument that cannot be hashed counts by its type:
    better to reuse its results than to repeat an hour of work on every resume.
    """

    def stable(value: Any) -> Any:
        return (
            ("upstream", path_of(value.node_id), value.index, _listed(value.indices))
            if type(value) is Ref
            else value
        )

    def of(source: Source) -> Any:
        match source:
            case Static(value, template):
                return "static", _digest(rebuild(value, stable) if template else value)
            case Column(values, template):
                return "column", _digest(rebuild(list(values), stable) if template else list(values))
            case Aligned(node_id, indices):
                return "aligned", path_of(node_id), _listed(indices)
            case Element(ref, _):
                return "element", path_of(ref.node_id), ref.index

    args = [of(source) for source in request.args]
    kwargs = sorted((name, of(source)) for name, source in request.kwargs.items())
    hasher = _begun(body.source).copy()
    hasher.update(f"{args!r}, {kwargs!r})".encode())
    return hasher.hexdigest()


def first_items(request: NodeRequest, width: int) -> NodeRequest:
    """Return the request of a map over the first items only, as far as its fingerprint is concerned."""

    def cut(source: Source) -> Source:
        match source:
            case Column(values, template):
                return Column(values[:width], template)
            case Aligned(node_id, indices) if indices is not None:
                return Aligned(node_id, indices[:width])
            case _:
                return source

    args = tuple(cut(source) for source in request.args)
    kwargs = {name: cut(source) for name, source in request.kwargs.items()}
    return replace(request, args=args, kwargs=kwargs, width=width)


@lru_cache(maxsize=1024)
def _begun(source: str) -> hashlib.blake2b:
    """Return the digest after a task's source, which many nodes share; the whole is that of a tuple's repr."""
    return hashlib.blake2b(f"({source!r}, ".encode(), digest_size=16)


def _digest(value: Any) -> str:
    try:
        return str(fingerprint(value))
    except Exception:  # locks, files, whatever a user's __reduce__ raises
        return f"type {type(value).__qualname__}"


def _listed(indices: Any) -> Any:
    return None if indices is None else list(indices)
