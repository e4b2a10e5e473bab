"""Every code block that a reader may copy runs.

A page's blocks run in order, in one namespace, in one fresh process and one fresh folder:

- ```` ```python ```` blocks are executed,
- ```` ```console ```` blocks: their `$ millrace ...` and `$ python ...` lines must exit with 0,
- a block after `<!-- file: name.py -->` is written to that file in the page's folder instead,
- a block after `<!-- no-run: reason -->` is only compiled.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLAYER = Path(__file__).with_name("play_page.py")
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)[^`]*$")
MARK = re.compile(r"^\s*<!--\s*(?P<kind>no-run|file):\s*(?P<value>.+?)\s*-->\s*$")
LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)#\s]+)(?:#[^)\s]*)?\)")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text, first line's number, and the mark above it."""

    language: str
    text: str
    line: int
    kind: str = ""
    value: str = ""


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page in their order."""
    found: list[Block] = []
    lines = page.splitlines()
    mark: tuple[str, str] = ("", "")
    at = 0
    while at < len(lines):
        marked, fence = MARK.match(lines[at]), FENCE.match(lines[at])
        if marked:
            mark = (marked["kind"], marked["value"])
        elif fence:
            start, indent = at + 1, len(fence["indent"])
            at = start
            while at < len(lines) and lines[at].strip() != fence["fence"]:
                at += 1
            body = "".join(line[indent:] + "\n" for line in lines[start:at])
            found.append(Block(fence["language"], body, start + 1, *mark))
            mark = ("", "")
        elif lines[at].strip():
            mark = ("", "")
        at += 1
    return found


def commands_of(text: str) -> list[str]:
    """The commands of a console block that the page's player runs."""
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    prompts = [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]
    return [command for command in prompts if command.split()[:1] in (["millrace"], ["python"])]


def steps_of(page: str) -> list[dict[str, object]]:
    """What the player does for a page; raises SyntaxError for a Python block that does not compile."""
    steps: list[dict[str, object]] = []
    for block in blocks_of(page):
        if block.language == "python" or block.value.endswith(".py"):
            compile(block.text, f"line {block.line}", "exec", dont_inherit=True)
        if block.kind == "no-run":
            continue
        if block.kind == "file":
            steps.append({"do": "write", "name": block.value, "text": block.text})
        elif block.language == "python":
            steps.append({"do": "python", "text": block.text, "line": block.line})
        elif block.language == "console":
            steps += [{"do": "command", "text": c, "line": block.line} for c in commands_of(block.text)]
    return steps


def play(page: Path, steps: list[dict[str, object]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's steps in one process, in the folder, with the records in a folder of their own."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")}
    environ["MILLRACE_HOME"] = str(folder / ".millrace")
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    work = folder / "page"
    work.mkdir()
    player = subprocess.Popen(
        [sys.executable, str(PLAYER), str(page)],
        cwd=work,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = player.communicate(json.dumps(steps), timeout=280)
    except subprocess.TimeoutExpired:
        os.killpg(
            player.pid, signal.SIGKILL
        )  # with all that it has started, which holds our end of the pipe, too
        output = player.communicate()[0] + "\nstill running after 280 s"
    return subprocess.CompletedProcess(player.args, player.returncode, output)


STARTS_RAY = {ROOT / "docs" / "swap.md"}
PLAYED = [pytest.param(page, marks=[pytest.mark.ray] if page in STARTS_RAY else []) for page in PAGES]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PLAYED, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of the page do what the page says they do."""
    steps = steps_of(page.read_text(encoding="utf-8"))
    if steps:
        done = play(page, steps, tmp_path)
        assert done.returncode == 0, f"{page.relative_to(ROOT)}:\n{done.stdout[-6000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file of the project."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def words_in_code(page: str) -> set[str]:
    """The words of a page that stand in backticks or in code blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    parts = re.findall(r"`[^`\n]+`", text) + [block.text for block in blocks_of(text)]
    return set(re.findall(r"[\w.-]+", " ".join(parts)))


def source_of(*packages: str) -> str:
    """All Python source of some packages."""
    files = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_the_state_diagram_is_the_table() -> None:
    """The design page draws the transition table as it is."""
    from orchestration.core.states import diagram

    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    drawn = [block.text.rstrip() for block in blocks_of(page) if block.language == "mermaid"]
    assert drawn == [diagram()]


def test_every_state_is_explained() -> None:
    """The design page says what each state of a task run means."""
    from orchestration.core.states import State

    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert [state.title for state in State if f"| {state.title} |" not in page] == []


def test_every_error_is_documented() -> None:
    """The page of errors has all classes of both packages' `errors`, as words in code."""
    from orchestration import errors
    from runners import errors as runner_errors

    def names(module: ModuleType) -> set[str]:
        kinds = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        return {n for n, kind in kinds.items() if kind.__module__ == module.__name__ and n[0] != "_"}

    told = {"Signal", "RemoteTraceback"}  # never caught nor raised by users by these names
    assert (names(errors) | names(runner_errors)) - words_in_code("errors.md") == told


def test_every_setting_is_documented() -> None:
    """Every MILLRACE_ variable of the code, and every key of [tool.millrace], is on the page of settings."""
    source = source_of("orchestration", "runners")
    variables = set(re.findall(r"(?<!_)MILLRACE_[A-Z][A-Z_]*", source))
    keys = set(re.findall(r'_setting\(\s*"MILLRACE_\w+",\s*"(\w+)"', source))
    assert keys >= {"home", "store", "results", "runner"}
    assert (variables | keys) - words_in_code("settings.md") == set()


def commands(group: Any, prefix: str) -> Iterator[str]:
    """The full names of a click group's commands."""
    import click

    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                yield from commands(command, f"{prefix} {name}")
            elif not command.hidden:
                yield f"{prefix} {name}"


def test_every_command_is_documented() -> None:
    """The page of the command line has every command and every exit code."""
    from orchestration.cli.app import cli
    from orchestration.cli.exits import Exit

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found = list(commands(cli, "millrace"))
    assert "millrace runs ls" in found
    assert [name for name in found if name not in page] == []
    assert [int(code) for code in Exit if f"| {int(code)} |" not in page] == []


def test_every_runner_option_is_documented() -> None:
    """The page of runners has all arguments of the constructors and all options of single tasks."""
    import runners

    words = words_in_code("runners.md")
    for name in ("SequentialTaskRunner", "ThreadPoolTaskRunner", "DaskTaskRunner", "RayTaskRunner"):
        runner = getattr(runners, name)
        options = {*inspect.signature(runner).parameters, *runner.capabilities.options}
        assert options - words == set(), name


def test_the_index_has_every_page() -> None:
    """Both the README and the index of the docs lead to each page."""
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    index = set(LINK.findall((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    readme = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert pages - index == set()
    assert pages - {Path(target).name for target in readme} == set()


SAMPLE = """\
Text.
```python
x = 1
```
<!-- file: flows.py -->
```python
y = 2
```
<!-- no-run: needs a cluster -->

```python
cluster()
```
- item
  ```console
  $ millrace runs \\
      ls
  some output
  $ dask scheduler
  ```
````text
```python
not a block
```
````
"""


def test_blocks_and_marks_are_found() -> None:
    """Marks hold for the next block only; output lines and other programs are left alone."""
    assert steps_of(SAMPLE) == [
        {"do": "python", "text": "x = 1\n", "line": 3},
        {"do": "write", "name": "flows.py", "text": "y = 2\n"},
        {"do": "command", "text": "millrace runs ls", "line": 16},
    ]


def test_steps_share_one_namespace_and_folder(tmp_path: Path) -> None:
    """A later block sees names and files of an earlier one, and pickles what it defined."""
    page = (
        "```python\nclass A:\n    pass\n```\n<!-- file: made.py -->\n```python\nvalue = 7\n```\n"
        "```python\nimport pickle\nfrom made import value\n"
        "assert value == 7\nassert type(pickle.loads(pickle.dumps(A()))) is A\n```\n"
        "```console\n$ python made.py\n```\n"
    )
    done = play(tmp_path / "sample.md", steps_of(page), tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "page", ["```python\nraise ValueError('boom')\n```\n", '```console\n$ python -c "exit(3)"\n```\n']
)
def test_a_failing_block_fails_the_page(tmp_path: Path, page: str) -> None:
    """Neither an exception nor an exit code is lost."""
    assert play(tmp_path / "sample.md", steps_of(page), tmp_path).returncode != 0


def test_a_block_that_does_not_compile_is_found() -> None:
    """Also where it is not run."""
    with pytest.raises(SyntaxError):
        steps_of("<!-- no-run: sample -->\n```python\nif:\n```\n")
