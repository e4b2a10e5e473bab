"""What a batch reads of the results of others, where these rest on an engine as `PackedResults`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .messages import Input
from .results import Frames, PackedResults, copied_bytes, load_frame, opened


class Held:
    """Results of one stage of another batch, unpickled when first read: where a failure is that of the input.

    What is read is the batch's own: nobody else sees what its items do to it. It is copied once, however many
    inputs read it.
    """

    __slots__ = ("_frames", "_loaded", "_results", "_stage", "copied_bytes")

    def __init__(self, results: PackedResults | bytes, stage: int) -> None:
        self._results = results
        self._stage = stage
        self._frames: Frames = []
        self._loaded: dict[int, list[Any]] = {}  # by frame
        self.copied_bytes = 0

    def pick(self, positions: Sequence[int]) -> list[Any]:
        """Return values. Raises `InternalError`, and whatever unpickling user objects does."""
        if not self._frames:
            self._frames = opened(self._results).frames[self._stage]
        if len(self._frames) > 1:
            return [self._load(position)[0] for position in positions]
        values = self._load(0)
        return [values[position] for position in positions]

    def _load(self, number: int) -> list[Any]:
        values = self._loaded.get(number)
        if values is None:
            frame = self._frames[number]
            values = self._loaded[number] = load_frame(frame)
            self.copied_bytes += copied_bytes(frame)
        return values


def held_by(inputs: Sequence[Input], results: Sequence[PackedResults | bytes | None]) -> list[Held | None]:
    """Return what each input reads, given the results of its batch. Inputs that read the same stage share it."""
    held: dict[tuple[int | None, int], Held] = {}
    return [
        None if found is None else held.setdefault((i.batch_id, i.stage), Held(found, i.stage))
        for i, found in zip(inputs, results, strict=True)
    ]
