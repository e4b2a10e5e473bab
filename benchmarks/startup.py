"""How long does it take until something happens? Import, `millrace --help`, and a hello flow as a whole process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .harness import Case, Report, measure

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


def run(*, repeats: int = 9) -> Report:
    """Measure whole processes, beside a Python that does nothing."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {**os.environ, "MILLRACE_HOME": str(home / "home"), "MILLRACE_DISPLAY": "off"}
        (home / "hello.py").write_text(HELLO)
        (home / "prefect_hello.py").write_text(PREFECT_HELLO)
        command = shutil.which("millrace") or str(Path(sys.executable).with_name("millrace"))

        def process(*words: str) -> Case:
            return Case(
                " ".join(Path(w).name if w.startswith("/") else w for w in words),
                lambda: subprocess.run(words, check=True, env=env, cwd=folder, capture_output=True) and None,
            )

        python = sys.executable
        cases = [
            process(python, "-c", "pass"),
            process(python, "-c", "import orchestration"),
            process(python, "-c", "from orchestration import flow, task"),
            process(command, "--help"),
            process(command, "--version"),
            process(python, str(home / "hello.py")),
        ]
        notes = []
        for peer in ("distributed", "ray", "prefect"):
            if find_spec(peer) is None:
                notes.append(f"{peer} is not installed here: left out")
            else:
                cases.append(process(python, "-c", f"import {peer}"))
        if find_spec("prefect") is not None:
            cases.append(process(python, str(home / "prefect_hello.py")))
        return measure("Start-up: whole processes", cases, repeats=repeats, notes=notes)


BASELINE = f"{Path(sys.executable).name} -c pass"
