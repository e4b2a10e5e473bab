"""Persisted results, and runs that are resumed: after failures, and after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestration import Skip, flow, task, unmapped
from orchestration.errors import RunAliveError, RunNotFoundError, RunNotResumableError
from runners import SequentialTaskRunner, ThreadPoolTaskRunner
from runners.base import TaskRunner

SCRIPT = """
import os, sys, time
from pathlib import Path
from orchestration import flow, task
from runners import SequentialTaskRunner, ThreadPoolTaskRunner

NOTES = Path(sys.argv[0]).with_name("notes")
GO = Path(sys.argv[0]).with_name("go")

def note(text):
    handle = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\\n".encode())
    os.close(handle)

@task(batch=1)
def work(n):
    while n >= 5 and not GO.exists():
        time.sleep(0.01)
    note(f"work {n}")
    return n * n

@task
def total(values):
    note("total")
    return sum(values)

@flow(persist_results=True, task_runner=ThreadPoolTaskRunner(2))
def main(count: int):
    return total.submit(work.map(range(count)))

if __name__ == "__main__":
    main(10)
"""


@task
def note(path: Path, text: str) -> str:
    with path.open("a") as file:
        file.write(f"{text}\n")
    return text


def test_kill_and_resume(record: Any, tmp_path: Path, until: Any) -> None:
    """After kill -9 a resume gives the right result and runs nothing again whose result was stored."""
    script, notes = tmp_path / "flows_to_kill.py", tmp_path / "notes"
    script.write_text(SCRIPT)
    root = Path(__file__).resolve().parents[3]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    process = subprocess.Popen([sys.executable, str(script)], env=env, stderr=subprocess.DEVNULL)
    try:
        until(lambda: record.runs() and record.counts().get("Completed", 0) >= 5, 60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = notes.read_text().split("\n")
    stored = {row.index for row in record.task_runs("work") if row.state.title == "Completed"}
    assert stored >= {0, 1, 2, 3, 4}
    (tmp_path / "go").touch()
    from orchestration.api.entrypoints import load_flow

    loaded = load_flow(f"{script}:main")
    sys.modules[loaded.fn.__module__].NOTES = notes  # type: ignore[attr-defined]
    sys.modules[loaded.fn.__module__].GO = tmp_path / "go"  # type: ignore[attr-defined]
    run = record.run("main")
    assert loaded.resume(run.run_id) == sum(n * n for n in range(10))
    after = notes.read_text().split("\n")
    ran_again = [n for n in stored if after.count(f"work {n}") != before.count(f"work {n}")]
    assert not ran_again
    assert all(f"work {n}" in after for n in range(10))
    assert record.run("main").state.title == "Completed"
    assert record.counts() == {"Completed": 11}


def test_resume_after_a_failure(runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """A failed run is continued: what has completed is not run again, what failed is."""
    notes, fixed = tmp_path / "notes", tmp_path / "fixed"

    @task
    def fragile(text: str) -> str:
        if not fixed.exists():
            raise ValueError("not yet")
        return text.upper()

    @flow(task_runner=runner, persist_results=True)
    def main(words: list[str]) -> Any:
        noted = [note.submit(notes, word) for word in words]
        return fragile.map(noted)

    state = main(["a", "b"], return_state=True)
    assert state.message == "2/2 task runs failed"
    fixed.touch()
    run = record.run("main")
    assert main.resume(run.name) == ["A", "B"]
    assert sorted(notes.read_text().split()) == ["a", "b"]
    assert record.run("main").run_id == run.run_id
    assert record.run("main").state.title == "Completed"


@pytest.mark.parametrize("persist", [True, False])
def test_skips_are_resumed(local_runner: TaskRunner, record: Any, tmp_path: Path, persist: bool) -> None:
    """What asked to be skipped is not run again where results are stored, and never where it must not run twice."""
    notes, fixed = tmp_path / "notes", tmp_path / "fixed"

    @task
    def free(word: str) -> str:
        note.fn(notes, f"free {word}")
        raise Skip("nothing to do")

    @task(rerun_on_loss=False)
    def once(word: str) -> str:
        note.fn(notes, f"once {word}")
        raise Skip("nothing to do")

    @task
    def fragile() -> None:
        if not fixed.exists():
            raise ValueError("not yet")

    @flow(task_runner=local_runner, persist_results=persist)
    def main() -> Any:
        futures = [*free.map(["a"]), *once.map(["b"])]
        for future in futures:
            future.wait()
        fragile.submit().result()
        return [future.state.name for future in futures]

    main(return_state=True)
    fixed.touch()
    assert main.resume(record.run().run_id) == ["Skipped", "Skipped"]
    assert sorted(notes.read_text().split("\n")[:-1]) == ["free a"] * (1 if persist else 2) + ["once b"]


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize(
    ("later", "told_apart"), [("a b c d", True), ("z a b c", False), ("a b", False), ("a x c", False)]
)
def test_maps_over_other_items_are_resumed(
    local_runner: TaskRunner, record: Any, tmp_path: Path, once: bool, later: str, told_apart: bool
) -> None:
    """What comes after the items of then runs, those are taken over. If they cannot be told, none starts that must
    not start twice: nor on the resume after that."""
    notes, words, fail = tmp_path / "notes", ["a", "b", "c"], [True]
    told = note.with_options(rerun_on_loss=not once)

    @flow(task_runner=local_runner, persist_results=True)
    def main() -> Any:
        futures = told.map(unmapped(notes), words)
        futures.wait()
        if fail:
            raise RuntimeError("stop")
        return [state.type for state in futures.states]

    main(return_state=True)
    words[:] = later.split()
    main.resume(record.run().run_id, return_state=True)
    fail.clear()
    states = main.resume(record.run().run_id)
    ran = "a b c d" if told_apart else "a b c" if once else f"a b c {later}"
    assert sorted(notes.read_text().split()) == sorted(ran.split())
    assert states == ["Crashed" if once and not told_apart else "Completed"] * len(words)


def test_changed_arguments_run_again(local_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """On a resume a task whose arguments have changed is run again."""
    notes, state = tmp_path / "notes", {"suffix": "1", "fail": True}

    @flow(task_runner=local_runner, persist_results=True)
    def main() -> Any:
        same = note.submit(notes, "same")
        changed = note.submit(notes, "changed" + str(state["suffix"]))
        same.wait()
        changed.wait()
        if state["fail"]:
            raise RuntimeError("stop")
        return same, changed

    with pytest.raises(RuntimeError):
        main()
    state.update(suffix="2", fail=False)
    assert main.resume(record.run().run_id) == ("same", "changed2")
    assert sorted(notes.read_text().split()) == ["changed1", "changed2", "same"]


def test_widths_learned_late_are_resumed(local_runner: TaskRunner, record: Any, tmp_path: Path) -> None:
    """A map over a stored list has its width again after a resume."""
    notes, fail = tmp_path / "notes", [True]

    @task
    def words() -> list[str]:
        note.fn(notes, "words")
        return ["a", "b", "c"]

    @flow(task_runner=local_runner, persist_results=True)
    def main() -> Any:
        noted = note.map(notes, words.submit())
        noted.wait()
        if fail:
            raise RuntimeError("stop")
        return noted

    with pytest.raises(RuntimeError):
        main()
    fail.clear()
    assert main.resume(record.run().run_id) == ["a", "b", "c"]
    assert sorted(notes.read_text().split()) == ["a", "b", "c", "words"]


def test_what_cannot_be_resumed(record: Any) -> None:
    """Unknown and completed runs, and parameters that could not be kept, are clear errors."""

    @flow(task_runner=SequentialTaskRunner(), validate_parameters=False)
    def main(x: Any = 1) -> Any:
        if x != 1:
            raise ValueError("x")
        return x

    main()
    with pytest.raises(RunNotResumableError, match="completed"):
        main.resume(record.run().run_id)
    with pytest.raises(RunNotFoundError):
        main.resume("nothing-like-that")
    import threading

    with pytest.raises(ValueError, match="x"):
        main(threading.Lock())
    with pytest.raises(RunNotResumableError, match="could not be pickled"):
        main.resume(record.run().run_id)


def test_a_live_run_cannot_be_resumed(record: Any) -> None:
    """A run whose process is alive is left to it."""

    @flow(task_runner=SequentialTaskRunner())
    def main() -> None:
        with pytest.raises(RunAliveError):
            main.resume(record.run().run_id)

    main()


def test_results_outlive_the_run(local_runner: TaskRunner, tmp_path: Path) -> None:
    """With persisted results a future can be asked after its run, wherever results are stored."""
    kept: list[Any] = []

    @flow(task_runner=local_runner, persist_results=True, result_storage=str(tmp_path / "results"))
    def main() -> None:
        kept.append(note.submit(tmp_path / "notes", "x"))

    main()
    assert kept[0].result() == "x"
    assert list((tmp_path / "results").rglob("*"))


@pytest.mark.parametrize("serializer", ["cloudpickle", "json", "msgpack"])
def test_serializers(runner: TaskRunner, tmp_path: Path, serializer: str) -> None:
    """Results are stored by each serializer; what one cannot say fails the task run with a clear message."""

    @task(persist_results=True, result_serializer=serializer)
    def make(odd: bool) -> Any:
        return {1: {2}} if odd else {"a": [1, 2.5, None, "x"]}

    @flow(task_runner=runner)
    def main() -> Any:
        odd = make.submit(True)
        odd.wait()
        return make.submit(False).result(), odd.state.type, str(odd.exception() or "")

    value, state, message = main()
    assert value == {"a": [1, 2.5, None, "x"]}
    if serializer == "cloudpickle":
        assert state == "Completed"
    else:
        assert state == "Failed"
        assert serializer in message


def test_two_thread_runs_do_not_mix_results(record: Any, tmp_path: Path) -> None:
    """Stored results belong to their run: another run of the same flow runs its own task runs."""
    notes = tmp_path / "notes"

    @flow(task_runner=ThreadPoolTaskRunner(2), persist_results=True)
    def main() -> Any:
        return note.submit(notes, "x")

    assert main() == main() == "x"
    assert notes.read_text().split() == ["x", "x"]
