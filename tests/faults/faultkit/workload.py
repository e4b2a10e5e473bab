"""The flow that plays a plan, and the process that runs it. Each execution of user code leaves a line outside.

The lines go to a file that is opened for appending only, one `write` each, so that they are whole whoever dies.
Their times are those of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
import zlib
from typing import Any

from orchestration import Skip, flow, runtime, task, unmapped


def note(history: str, **said: Any) -> None:
    """Append a line to a history."""
    said.update(t=time.monotonic(), p=os.getpid())
    handle = os.open(history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps(said) + "\n").encode())
    finally:
        os.close(handle)


def _eat_memory() -> None:
    held = []
    while True:
        held.append(bytearray(b"x" * (16 << 20)))


def _spin(seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


# What an item may do to its process or to itself.
SICK = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "memory": _eat_memory,
    "spin": _spin,
    "sleep": lambda: time.sleep(30.0),
    "c": lambda: ctypes.CDLL(None).sleep(30),
}


HUGE = 40_000_000  # bytes of a result; its length stands for it in the history


class Unmovable:
    """A result that cannot be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("this stays where it is")


def play(given: Any, index: int, spec: dict[str, Any]) -> Any:
    """Be one task run: note that it starts, do as the plan says, note how it ends."""
    me = runtime.task_run
    history, name, attempt = spec["history"], spec["name"], me.attempt or 0
    who = {"n": name, "i": index, "a": attempt, "x": me.execution_id, "l": spec["limited"]}
    note(history, e="start", **who)
    if spec["seconds"]:
        time.sleep(spec["seconds"])
    sick = spec["sick"].get(str(index), "")
    again, _, what = sick.rpartition(":")
    if what and (again or attempt == 1):
        if what == "unpicklable":
            note(history, e="fail", **who)
            return Unmovable()
        if what == "huge":
            note(history, e="end", v=HUGE, **who)
            return "x" * HUGE
        SICK[what]()
    if index in spec["fatal"] or attempt <= spec["flaky"].get(str(index), 0):
        note(history, e="fail", **who)
        raise ValueError(f"{name}[{index}] fails in attempt {attempt}")
    if index in spec["skips"]:
        note(history, e="skip", **who)
        raise Skip("by plan")
    if isinstance(given, str):
        given = len(given)
    value = zlib.crc32(f"{name}/{index}/{given}".encode())
    note(history, e="end", v=value, **who)
    return value


work = task(play)


@flow(name="faults", validate_parameters=False)
def main(plan: dict[str, Any], history: str) -> None:
    """Submit a plan's nodes, wait for them, and note what results the flow gets."""
    made: list[Any] = []
    for node in plan["nodes"]:
        options = {
            "name": node["name"],
            "retries": node["retries"],
            "retries_on_loss": node["retries_on_loss"],
            "rerun_on_loss": not node["once"],
            "batch": node["batch"] or "auto",
            "timeout_seconds": node["timeout"],
            "tags": {"shared"} if node["limited"] else set(),
            "persist_results": plan["persist"],
        }
        chosen = work.with_options(**options)
        spec = unmapped({**node, "history": history})
        if node["gather"] is not None:
            made.append([chosen.submit(made[node["gather"]], 0, spec.value)])
        elif node["source"] is not None:
            made.append(chosen.map(made[node["source"]], range(node["width"]), spec))
        else:
            made.append(chosen.map(unmapped(None), range(node["width"]), spec))
    for node, futures in zip(plan["nodes"], made, strict=True):
        for future in futures:
            future.wait()
        results = [_result(future) for future in futures]
        note(history, e="results", n=node["name"], r=results)


def _result(future: Any) -> Any:
    if future.state.type != "Completed":
        return None
    try:
        value = future.result()
        return len(value) if isinstance(value, str) else value
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def child(job: dict[str, Any]) -> None:
    """Run or resume the flow as a job says; the process's whole life.

    Keys: output (file for stdout and stderr), environ, runner, plan, history, resume (a run's id, or None), inject
    (name and arguments of a function of `inside`).
    """
    output = os.open(job["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(output)  # what is stuck gets SIGABRT, and shows where
    os.environ.update(job["environ"])
    os.chdir(os.path.dirname(job["output"]))
    code = 1
    try:
        from faultkit import inside

        _reseed()
        for name, *arguments in job.get("inject", ()):
            getattr(inside, name)(*arguments)
        _go(job)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        _close_stores()
        os._exit(code)  # as a forked process: the exit handlers are those of another process


def _go(job: dict[str, Any]) -> None:
    from faultkit.engines import runner_of

    chosen = main.with_options(task_runner=runner_of(job["runner"]), persist_results=job["plan"]["persist"])
    if job["resume"] is not None:
        chosen.resume(job["resume"])
    else:
        chosen(job["plan"], job["history"])


def _reseed() -> None:
    import random

    random.seed()


def _close_stores() -> None:
    with contextlib.suppress(BaseException):
        from orchestration import stores

        stores._close_all()
