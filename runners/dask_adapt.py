"""Clusters that grow and shrink with the work: the arguments of `cluster.adapt`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from .errors import UserError

# Dask asks for as many workers as would do what it has within its `target-duration`, 5 s. It has little: the rest
# of the work waits in the flow's process. Two batches of 0.2 s for each thread are there while there is plenty.
TARGET_DURATION = "400ms"
SET_BY_DASK = {"self", "cluster", "n", "key", "target", "attribute"}


def check_adapt(make: Callable[..., Any], adapt: Mapping[str, Any]) -> None:
    """Refuse arguments that a cluster's `adapt` does not know, or that contradict each other.

    Dask itself takes any name, and fails to remove workers later, in a line of its log.

    Args:
        make: the cluster's class, or a function that makes one, of which nothing is known.
        adapt: the arguments, `adapt_kwargs`.

    Raises:
        UserError: a name or a number cannot be right; it says what can.
    """
    names = _names(make)
    for name in adapt:
        if names and name not in names:
            near = next((known for known in ("minimum", "maximum") if name[:3] == known[:3]), "")
            meant = f" Did you mean {near}?" if near in names else ""
            raise UserError(
                f"adapt_kwargs has {name!r}, which {make.__qualname__}.adapt does not take.{meant} It takes "
                f"{', '.join(names)}."
            )
    for name in ("minimum", "maximum"):
        value = adapt.get(name, 1)
        if not (type(value) is int and value >= 0) and value not in (None, math.inf):
            raise UserError(
                f"{name} in adapt_kwargs is {value!r}; it has to be a number of workers, such as 2"
            )
    least, most = adapt.get("minimum") or 0, adapt.get("maximum")
    if most is not None and most < max(1, least):
        raise UserError(
            f"maximum in adapt_kwargs is {most}; it has to be at least {max(1, least)}"
            + (", the minimum" if least > 1 else "")
        )


def adapt_cluster(cluster: Any, adapt: Mapping[str, Any]) -> None:
    """Let a cluster grow and shrink by itself, as fast as our work needs it where the user does not say how fast."""
    check_adapt(type(cluster), adapt)
    options = dict(adapt)
    if "target_duration" in _names(type(cluster)) and not _configured():
        options.setdefault("target_duration", TARGET_DURATION)
    cluster.adapt(**options)


def _configured() -> bool:
    """Whether the user's own configuration of Dask says how fast clusters grow."""
    import dask

    found: str = dask.config.get("distributed.adaptive.target-duration", default="5s")
    return found != "5s"


def _names(make: Callable[..., Any]) -> list[str]:
    """Return the names that a cluster's `adapt` takes, those of numbers first; [] if that is not known."""
    from distributed.deploy.adaptive import Adaptive
    from distributed.deploy.cluster import Cluster
    from distributed.scheduler import Scheduler

    if not inspect.isclass(make):
        return []
    functions = [cls.__dict__["adapt"] for cls in make.__mro__ if "adapt" in cls.__dict__]
    if issubclass(make, Cluster):  # which hands on what it does not know
        functions += [Adaptive.__init__, Scheduler.workers_to_close]
    found: set[str] = set()
    for function in functions:
        parameters = inspect.signature(function).parameters.values()
        found |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            known = sorted(found - SET_BY_DASK)
            return sorted(known, key=lambda name: not name.startswith(("minimum", "maximum")))
    return []
