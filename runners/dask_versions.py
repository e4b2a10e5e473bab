"""Whether the workers of a Dask cluster can run what this process sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import VersionMismatchError

PIP_LINE = "pip install 'millrace[dask]'"


def check_versions(client: Any) -> None:
    """Compare Python, cloudpickle and Millrace on all workers with ours.

    Raises:
        VersionMismatchError: naming the first worker that differs, and the cure.
    """
    from .dask_worker import mismatch, versions

    ours = client.get_versions()
    for address, theirs in ours["workers"].items():
        for package in ("python", "cloudpickle"):
            here, there = (_minor(v["packages"].get(package)) for v in (ours["client"], theirs))
            if here != there:
                raise VersionMismatchError(
                    f"worker {address} has {package} {there}, the flow's process {here}. Pickled functions "
                    "do not pass between them: use the same version in both."
                )
    mine = versions()["millrace"]
    for address, reply in client.run(by_value(_probe), on_error="return").items():
        if isinstance(reply, OSError):
            continue  # it has gone meanwhile; what comes in its place is not asked either
        if isinstance(reply, Exception):
            raise VersionMismatchError(f"worker {address} cannot be asked for its version: {reply}")
        if "missing" in reply:
            raise VersionMismatchError(
                f"worker {address} cannot import millrace ({reply['missing']}). Install it there: {PIP_LINE}"
            )
        if reply["millrace"] != mine:
            raise VersionMismatchError(
                f"{mismatch(address, reply['millrace'], mine)} (its file: {reply['file']})"
            )


def _probe() -> dict[str, str]:
    try:
        import importlib  # by name: this code travels by value

        found: dict[str, str] = importlib.import_module("runners.dask_worker").versions()
    except Exception as error:
        return {"missing": f"{type(error).__name__}: {error}"}
    return found


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function to be pickled with its code, for processes that may lack this package."""
    function.__module__ = "__main__"
    return function


def _minor(version: str | None) -> str:
    return ".".join((version or "none").split(".")[:2])


def lacks_millrace(error: BaseException) -> bool:
    """Whether a worker could not import this package."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "runners"
