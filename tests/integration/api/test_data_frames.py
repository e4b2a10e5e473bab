"""Data frames from task to task: the same on every runner, by every path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration import INPUTS, flow, task, unmapped
from runners.base import TaskRunner

pd = pytest.importorskip("pandas")


def sales(region: int) -> Any:
    """Return a frame with columns of the usual types and an index of two levels."""
    n = 6
    return pd.DataFrame(
        {
            "amount": [float(region * 10 + k) for k in range(n)],
            "count": pd.array([k if k % 2 else None for k in range(n)], "Int64"),
            "name": [f"shop {k}" for k in range(n)],
            "kind": pd.Categorical(["a", "b"] * 3, categories=["a", "b", "c"]),
            "at": pd.date_range("2026-03-29", periods=n, freq="h", tz="Europe/Berlin"),
        },
        index=pd.MultiIndex.from_product([[region], range(n)], names=["region", "shop"]),
    )


@task
def load(region: int) -> Any:
    return sales(region)


@task
def tidy(frame: Any, rates: Any) -> Any:
    """Change a frame in place, as people do."""
    frame["amount"] += 1
    frame.loc[frame["name"] == "shop 0", "amount"] = -1.0
    frame.insert(0, "rate", frame["kind"].map(rates).astype(float))
    del frame["name"]
    return frame


@task
def summed(frame: Any) -> Any:
    return frame.groupby("kind", observed=False)["amount"].sum()


@task
def joined(frames: Any) -> Any:
    whole = pd.concat(frames)
    return whole.sort_values("amount", ascending=False).head(5)


def expected(regions: list[int], rates: Any) -> tuple[Any, list[Any]]:
    tidied = [tidy.fn(sales(region), rates) for region in regions]
    return joined.fn(tidied), [summed.fn(frame) for frame in tidied]


def test_frames_are_changed_grouped_and_joined(runner: TaskRunner) -> None:
    """Their types, index, categories and time zones are as pandas alone would have them."""
    rates = pd.Series({"a": 1.5, "b": 2.0, "c": 3.0})

    @flow(task_runner=runner)
    def report(regions: list[int]) -> Any:
        tidied = tidy.map(load.map(regions), unmapped(rates))
        best, sums = joined.submit(tidied), summed.map(tidied)
        return best.result(), sums.result()

    best, sums = report([1, 2, 3])
    wanted_best, wanted_sums = expected([1, 2, 3], rates)
    pd.testing.assert_frame_equal(best, wanted_best)
    for found, wanted in zip(sums, wanted_sums, strict=True):
        pd.testing.assert_series_equal(found, wanted)


def test_frames_are_stored_and_found_again(runner: TaskRunner, tmp_path: Path) -> None:
    """A frame as an argument is a cache key by its content, and what comes from storage is the same frame."""
    ran = tmp_path / "ran"

    @task(cache_policy=INPUTS)
    def doubled(frame: Any) -> Any:
        with ran.open("a") as file:
            file.write(".")
        frame["amount"] *= 2
        return frame

    @flow(task_runner=runner, persist_results=True, result_storage=str(tmp_path / "results"))
    def twice(region: int) -> Any:
        return doubled.submit(sales(region)).result()

    first, again, other = twice(1), twice(1), twice(2)
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(other, doubled.fn(sales(2)))
    assert len(ran.read_text()) == 3  # one of them by `doubled.fn` above
