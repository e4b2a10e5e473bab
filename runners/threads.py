"""Task runs on threads of the flow's process: for I/O, and for code that releases the GIL."""

from __future__ import annotations

import os
from typing import ClassVar

from .errors import UserError
from .pool import InProcessRunner


class ThreadPoolTaskRunner(InProcessRunner):
    """Runs up to `max_workers` batches at a time on threads of this process.

    Args:
        max_workers: default `min(32, cores + 4)`, as in `concurrent.futures`.
    """

    name: ClassVar[str] = "threads"

    def __init__(self, max_workers: int | None = None) -> None:
        given: object = max_workers  # not everybody checks types
        if given is not None and not (isinstance(given, int) and given >= 1):
            raise UserError(f"max_workers is {given!r}; ThreadPoolTaskRunner needs a whole number from 1")
        self.max_workers = max_workers or min(32, (os.cpu_count() or 1) + 4)
        super().__init__(slots=self.max_workers)

    def describe(self) -> str:
        return f"ThreadPoolTaskRunner, {self.max_workers} threads"
