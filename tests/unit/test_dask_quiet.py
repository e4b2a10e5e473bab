"""What a Dask worker says that ends: what it said before."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """What Dask's log would write to the terminal; its levels are put back."""
    root, core, written = logging.getLogger("distributed"), logging.getLogger("distributed.core"), StringIO()
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(written)])
    before = root.level, core.level
    root.setLevel(logging.INFO)
    yield written
    root.setLevel(before[0])
    core.setLevel(before[1])


@pytest.mark.parametrize(
    ("nanny", "silence", "heard"),
    [
        ("tcp://here", logging.CRITICAL, ""),  # a process of its own, that was silenced
        ("tcp://here", logging.NOTSET, "closed\n"),  # one that its user wants to hear
        (None, logging.CRITICAL, "closed\n"),  # a worker in the user's own process
    ],
)
def test_a_worker_that_ends_is_as_quiet_as_it_was(
    said: StringIO, nanny: str | None, silence: int, heard: str
) -> None:
    """Dask takes its silence back before the last connection of a worker is closed, of which it tells."""
    from runners.dask_worker import CancellationPlugin

    (handler,) = logging.getLogger("distributed").handlers
    handler.setLevel(silence)
    CancellationPlugin().teardown(SimpleNamespace(nanny=nanny))
    handler.setLevel(logging.NOTSET)
    logging.getLogger("distributed.core").info("closed")
    assert said.getvalue() == heard
