"""Runs one documentation page's steps, given as JSON on standard input; test_docs.py starts it.

The blocks run in a new `__main__` module without a file, so that functions and classes pickle as in a user's
script, and a process pool's children have no script to import again.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import types
from pathlib import Path


def run_command(text: str, where: str) -> None:
    print(f"$ {text}", flush=True)
    words = shlex.split(text)
    if words[0] == "python":
        words[0] = sys.executable
    code = subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode
    if code:
        sys.exit(f"{where}: `{text}` ended with exit code {code}")


def main(page: str, steps: list[dict[str, str | int]]) -> None:
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.path[0] = ""
    for step in steps:
        text = str(step["text"])
        if step["do"] == "write":
            path = Path(str(step["name"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif step["do"] == "command":
            run_command(text, f"{page}:{step['line']}")
        else:
            # Blank lines in front make line numbers, and what inspect finds, those of the page.
            padded = "\n" * (int(step["line"]) - 1) + text
            exec(compile(padded, page, "exec", dont_inherit=True), module.__dict__)


main(sys.argv[1], json.load(sys.stdin))
