"""Which package may import which, and what a plain import must not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RANKS = {"core": 0, "stores": 1, "driver": 2, "api": 3, "cli": 4}
HEAVY = ["dask", "distributed", "ray", "pydantic_settings", "fastapi", "rich", "numpy", "pandas", "urllib3"]


def rank_of(module: str) -> int | None:
    """A package's place in the one-way data flow; None for what belongs to all of them."""
    parts = module.split(".")
    return RANKS.get(parts[1]) if len(parts) > 1 and parts[0] == "orchestration" else None


def wrong_imports(source: Any) -> list[str]:
    """Imports that go up the ranks, from runners to orchestration, or absolutely inside one package."""
    found = []
    own = source.name.split(".")[0]
    mine = rank_of(source.name)
    for item in source.imports():
        where = f"{source.path}:{item.line}"
        targets = [item.module, *(f"{item.module}.{name}" for name in item.names)]
        if item.module.split(".")[0] == own and not item.relative:
            found.append(f"{where} imports {item.module} absolutely; inside a package imports are relative")
        if own == "runners" and item.module.split(".")[0] == "orchestration":
            found.append(f"{where}: runners never imports orchestration")
        ranks = [rank for rank in map(rank_of, targets) if rank is not None]
        if mine is not None and not item.typing_only and any(rank > mine for rank in ranks):
            found.append(f"{where} imports {item.module}, which is above it")
    return found


def test_imports_go_one_way(sources: list[Any]) -> None:
    """cli -> api -> driver -> stores -> core, orchestration -> runners, and never back."""
    problems = [problem for source in sources for problem in wrong_imports(source)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("runners.sample", "def f():\n    from orchestration import flow"),
        ("runners.sample", "from runners.messages import Item"),
        ("orchestration.core.sample", "from ..driver.loop import Driver"),
        ("orchestration.driver.sample", "from .. import api"),
        ("orchestration.stores.sample", "import orchestration.cli"),
    ],
)
def test_the_check_finds_a_wrong_import(make_source: Any, name: str, text: str) -> None:
    """The check itself is not blind."""
    assert wrong_imports(make_source(name, text))


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running the code elsewhere."""
    report = "import sys; sys.stderr.write('\\n' + ' '.join({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_importing_orchestration_is_light(tmp_path: Path) -> None:
    """A user of one runner pays for no other, nor for the settings and the terminal."""
    assert not loaded_by("import orchestration", tmp_path) & set(HEAVY)


def test_importing_runners_is_light(tmp_path: Path) -> None:
    """A worker loads the small package alone."""
    heavy = {*HEAVY, "orchestration", "pydantic", "click", "fsspec", "sqlite3"}
    assert not loaded_by("import runners", tmp_path) & heavy


def test_the_names_users_import_are_light(tmp_path: Path) -> None:
    """Decorators load no engine; a runner's class loads its engine only when it starts."""
    code = "from orchestration import flow, task, unmapped\nfrom runners import ThreadPoolTaskRunner"
    assert not loaded_by(code, tmp_path) & set(HEAVY)


def test_help_is_light(tmp_path: Path) -> None:
    """`millrace --help` answers without loading what it does not show."""
    code = (
        "import sys\nfrom orchestration.cli import main\nsys.argv = ['millrace', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert not loaded_by(code, tmp_path) & set(HEAVY)
