"""How long does it take until something happens? Import, `millrace --help`, and a hello flow as a whole process.

Byte code may be written, as it is where people install packages: `PYTHONDONTWRITEBYTECODE` is not passed on. The
first round writes it and does not count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .harness import Case, Report, Target, measure
from .peers import peer_python

HELLO = """
from orchestration import flow, task

@task
def greet(name):
    return f"hello {name}"

@flow
def hello():
    return greet.submit("world").result()

if __name__ == "__main__":
    assert hello() == "hello world"
"""

PREFECT_HELLO = HELLO.replace("from orchestration", "from prefect")
BUDGETS = {  # seconds, by DESIGN.md
    "python -c import orchestration": 0.15,
    "python -c from orchestration import flow, task": 0.15,
    "millrace --help": 0.15,
    "python hello.py": 0.4,
}


def run(*, repeats: int = 9) -> Report:
    """Measure whole processes, beside a Python that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {**os.environ, "MILLRACE_HOME": str(home / "home"), "MILLRACE_DISPLAY": "off"}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env["PREFECT_HOME"] = str(home / "prefect")
        (home / "hello.py").write_text(HELLO)
        (home / "prefect_hello.py").write_text(PREFECT_HELLO)
        python, command = sys.executable, str(Path(sys.executable).with_name("millrace"))

        def process(*words: str, name: str = "") -> Case:
            def ran() -> None:
                subprocess.run(words, check=True, env=env, cwd=folder, capture_output=True)

            program = "python" if words[0] == python else Path(words[0]).name
            return Case(name or " ".join((program, *words[1:])), ran)

        cases = [
            process(python, "-c", "pass"),
            process(python, "-c", "import orchestration"),
            process(python, "-c", "from orchestration import flow, task"),
            process(command, "--help"),
            process(command, "--version"),
            process(python, "hello.py"),
        ]
        notes: list[str] = []
        for peer in ("distributed", "ray"):
            if find_spec(peer) is None:
                notes.append(f"{peer} is not installed here: left out")
            else:
                cases.append(process(python, "-c", f"import {peer}"))
        prefect = peer_python(notes)
        if prefect is not None:
            cases.append(
                process(str(prefect), "-c", "from prefect import flow, task", name="Prefect, import")
            )
            cases.append(process(str(prefect), "prefect_hello.py", name="Prefect, hello.py"))
        report = measure("Start-up: whole processes", cases, repeats=repeats, notes=notes)
    for name, seconds in BUDGETS.items():
        report.targets.append(Target(name, report.of(name).median, seconds, "s", at_most=True))
    return report


BASELINE = "python -c pass"
