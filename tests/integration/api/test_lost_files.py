"""Stored results that are damaged or deleted before a run is resumed: they are made again, on every runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestration import flow, task
from orchestration.api import fetching
from orchestration.errors import CrashedRunError
from runners.base import TaskRunner
from runners.errors import ResultFileLostError, ResultLostError
from runners.messages import Stored
from runners.storage import read_stored


@task
def square(trace: Path, n: int) -> int:
    note(trace, n)
    return n * n


@task
def numbers(trace: Path) -> list[int]:
    note(trace, "numbers")
    return [1, 2, 3]


@task
def total(trace: Path, values: list[int]) -> int:
    note(trace, "total")
    return sum(values)


@task
def gate(path: Path, value: Any) -> Any:
    if not path.exists():
        raise ValueError("not yet")
    return value


@task(rerun_on_loss=False)
def pay(trace: Path, n: int) -> int:
    note(trace, n)
    return n


def note(trace: Path, word: object) -> None:
    with trace.open("a", encoding="utf-8") as file:
        file.write(f"{word}\n")


class Place:
    """A folder with what a flow writes down, and with its results, which can be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.trace, self.go, self.results = folder / "trace", folder / "go", folder / "results"

    def executions(self) -> Counter[str]:
        return Counter(self.trace.read_text(encoding="utf-8").split())

    def spoil(self) -> int:
        """Delete each second file and change a bit of the others; return how many there were."""
        files = sorted(path for path in self.results.rglob("*.result"))
        for k, path in enumerate(files):
            if k % 2:
                path.unlink()
            else:
                content = bytearray(path.read_bytes())
                content[-1] ^= 1
                path.write_bytes(content)
        return len(files)

    def spoil_and_resume(self, main: Any, record: Any) -> Any:
        """Let a flow fail, spoil all that it has stored, and resume it."""
        main(return_state=True)
        assert self.spoil()
        self.go.touch()
        return main.resume(record.run().run_id)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_readers_and_the_flow_need_is_made_again(runner: TaskRunner, record: Any, place: Place) -> None:
    """A chain of stored results is lost: task runs get them, the flow gets them, and the record says why."""

    @flow(task_runner=runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        squares = square.map(place.trace, range(4))
        summed = total.submit(place.trace, squares)
        return gate.submit(place.go, summed), squares

    assert place.spoil_and_resume(main, record) == (14, [0, 1, 4, 9])
    assert place.executions() == {"0": 2, "1": 2, "2": 2, "3": 2, "total": 2}
    assert record.run().state.title == "Completed"
    told = [row.reason for row in record.attempts("square", 0)]
    assert any("result file" in reason and "had to be made again" in reason for reason in told)


def test_what_is_mapped_over_is_made_again(runner: TaskRunner, record: Any, place: Place) -> None:
    """A list is lost whose length the map has to know before it is submitted."""

    @flow(task_runner=runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        listed = numbers.submit(place.trace)
        gate.submit(place.go, listed).result()
        return square.map(place.trace, listed)

    assert place.spoil_and_resume(main, record) == [1, 4, 9]
    assert place.executions()["numbers"] == 2


def test_what_is_called_runs_again(runner: TaskRunner, record: Any, place: Place) -> None:
    """The result of a task that the flow has called directly is lost: the call runs it."""

    @flow(task_runner=runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        value = square(place.trace, 3)
        return gate.submit(place.go, value)

    assert place.spoil_and_resume(main, record) == 9
    assert place.executions() == {"3": 2}


def test_what_a_task_run_has_called_is_taken_over(runner: TaskRunner, record: Any, place: Place) -> None:
    """A task run is tried again that has called a task: it gets what the call has stored, and not None."""

    @task
    def caller(trace: Path, go: Path) -> int:
        value = square.with_options(persist_result=True)(trace, 3)
        if not go.exists():
            raise ValueError("not yet")
        return value + 1

    @flow(task_runner=runner, result_storage=str(place.results))
    def main() -> Any:
        return caller.submit(place.trace, place.go)

    main(return_state=True)
    place.go.touch()
    assert main.resume(record.run().run_id) == 10
    assert place.executions() == {"3": 1}


def test_what_is_called_is_read_once(
    local_runner: TaskRunner, record: Any, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is lost after the call has read it is missed by nobody."""

    def read_and_lose(stored: Stored, positions: Sequence[int]) -> list[Any]:
        values = read_stored(stored, positions)
        Path(stored.url).unlink()
        return values

    @flow(task_runner=local_runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        value = square(place.trace, 3)
        if not place.go.exists():
            raise ValueError("not yet")
        return value

    main(return_state=True)
    place.go.touch()
    monkeypatch.setattr(fetching, "read_stored", read_and_lose)
    assert main.resume(record.run().run_id) == 9
    assert place.executions() == {"3": 1}


def test_what_is_called_must_not_run_twice(
    local_runner: TaskRunner, record: Any, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """With `rerun_on_loss=False` the call is Crashed, and the log says so instead of that it runs again."""

    @flow(task_runner=local_runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        value = pay(place.trace, 3)
        return gate.submit(place.go, value)

    with pytest.raises(CrashedRunError, match="must not run twice"):
        place.spoil_and_resume(main, record)
    assert place.executions() == {"3": 1}
    assert "lost its result, and must not run again (rerun_on_loss=False): the result file" in caplog.text


def test_what_is_not_stored_comes_first(runner: TaskRunner, record: Any, place: Place) -> None:
    """A lost result was made from one that was never stored: that runs first, as it does in any resume."""

    @flow(task_runner=runner, result_storage=str(place.results))
    def main() -> Any:
        squares = square.map(place.trace, range(4))
        summed = total.with_options(persist_result=True).submit(place.trace, squares)
        return gate.submit(place.go, summed)

    assert place.spoil_and_resume(main, record) == 14
    assert place.executions()["total"] == 2


def test_what_must_not_run_twice_is_not_made_again(runner: TaskRunner, record: Any, place: Place) -> None:
    """With `rerun_on_loss=False` its readers are Crashed, and say which file was lost."""

    @flow(task_runner=runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        paid = pay.map(place.trace, range(2))
        return gate.submit(place.go, paid)

    with pytest.raises(CrashedRunError, match=r"result file .*rerun_on_loss=False"):
        place.spoil_and_resume(main, record)
    assert place.executions() == {"0": 1, "1": 1}


def test_the_flow_asks_for_what_must_not_run_twice(
    local_runner: TaskRunner, record: Any, place: Place
) -> None:
    """There is no result to give, and the error says which file it was in."""

    @flow(task_runner=local_runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        paid = pay.submit(place.trace, 1)
        gate.submit(place.go, 1).result()
        return paid.result()

    with pytest.raises(ResultLostError, match=r"result file .*rerun_on_loss=False"):
        place.spoil_and_resume(main, record)
    assert place.executions() == {"1": 1}


def test_after_the_run(local_runner: TaskRunner, record: Any, place: Place) -> None:
    """Nothing is made again for a run that has ended: the error names the file."""
    kept: list[Callable[[], Any]] = []

    @flow(task_runner=local_runner, persist_results=True, result_storage=str(place.results))
    def main() -> Any:
        squared = square.submit(place.trace, 2)
        squared.wait()
        kept.append(squared.state.result)
        return gate.submit(place.go, 1)

    main(return_state=True)
    place.go.touch()
    main.resume(record.run().run_id)
    place.spoil()
    with pytest.raises(ResultFileLostError, match="result file"):
        kept[-1]()
