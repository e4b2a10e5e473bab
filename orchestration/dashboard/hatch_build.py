"""Bundles the dashboard for a wheel or sdist, by the same task as `make ui`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Only where the registry has a Deno; elsewhere an editable install goes without the pages.
DENO = "deno>=2.9,<3; platform_machine in 'x86_64 AMD64 aarch64 arm64'"
GET_DENO = "Build it with `make ui`, or install Deno 2.9 (`pip install deno`) and build again."
GET_PACKAGES = (
    "Its packages come from the npm registry: build where that can be reached, name another in NPM_CONFIG_REGISTRY, "
    "or set DENO_DIR to a folder of Deno's that has them."
)


class DashboardHook(BuildHookInterface[Any]):
    """Makes orchestration/dashboard/static/, which the wheel takes along as an artifact."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bundle; only a warning in an editable build, so that one works without Deno or a network."""
        if self._from_sdist:
            return
        problem = bundle(Path(self.root))
        if problem and version == "editable":
            self.app.display_warning(f"The dashboard is not built: {problem}")
        elif problem:  # whoever builds wants the sentence, and no traceback of the build backend
            self.app.abort(f"The dashboard cannot be built: {problem}")

    def dependencies(self) -> list[str]:
        """What an isolated build installs; nothing where the bundle is there already."""
        return [] if self._from_sdist or _find_deno() else [DENO]

    @property
    def _from_sdist(self) -> bool:
        root = Path(self.root)
        return (root / "PKG-INFO").exists() and (_folder(root) / "static" / "index.html").exists()


def bundle(root: Path) -> str | None:
    """Bundle the dashboard of the checkout at `root`.

    Returns:
        Why it did not work and what to do, or None.
    """
    deno = _find_deno()
    if deno is None:
        return f"there is no Deno here. {GET_DENO}"
    cache = os.environ.get("DENO_DIR") or str(root / ".cache" / "deno")
    env = os.environ | {"DENO_DIR": cache, "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    command = [deno, "task", "--quiet", "bundle"]
    try:
        done = subprocess.run(
            command, cwd=_folder(root), env=env, capture_output=True, text=True, timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"{deno}: {problem}. {GET_DENO}"
    if done.returncode == 0:
        return None
    said = done.stderr.partition("Stack backtrace")[0].strip()
    return f"`deno task bundle` said: {said}" + (f"\n{GET_PACKAGES}" if "npm" in said else "")


def _folder(root: Path) -> Path:
    return root / "orchestration" / "dashboard"


def _find_deno() -> str | None:
    beside = Path(sys.executable).with_name("deno")
    return str(beside) if beside.exists() else shutil.which("deno")
