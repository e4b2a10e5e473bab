"""What `millrace server start` says before it serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestration.web import pages, server


def test_it_says_how_to_build_pages_that_are_not_there(
    call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An editable install without Deno has none; the API works, and with pages nothing is said."""

    def no_serving(store: Any, options: Any, *, ready: Callable[[str], None]) -> None:
        ready("http://127.0.0.1:4280")

    monkeypatch.setattr(server, "serve", no_serving)
    monkeypatch.setattr(pages, "BUNDLE", tmp_path)
    code, out, err = call("server", "start")
    assert (code, out.splitlines()[0]) == (0, "dashboard  http://127.0.0.1:4280")
    assert "make ui" in err
    (tmp_path / "index.html").touch()
    assert call("server", "start")[2] == ""
