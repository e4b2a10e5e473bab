"""One task run at a time, in the flow's process: the reference for all other runners."""

from __future__ import annotations

from typing import ClassVar

from .pool import InProcessRunner


class SequentialTaskRunner(InProcessRunner):
    """Runs task runs one at a time in this process, in a thread of its own."""

    name: ClassVar[str] = "sequential"

    def __init__(self) -> None:
        super().__init__(slots=1)
