"""Coverage-guided fuzzing of control messages: `make fuzz`, or `python tests/fuzz/messages.py -max_total_time=60`.

Whatever bytes come, `codec.unpack` refuses them with an `InternalError` or returns a message that packs again.
"""

from __future__ import annotations

import sys
from array import array
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["runners.codec", "runners.schema", "runners.messages"]):
    from runners import codec
    from runners.errors import InternalError
    from runners.messages import BatchProgress, BatchStarted, Call, Detail, LogLine, Stored, Table

LINE = LogLine(0, 0, 0, 1.0, 20, "logger", "text")
DETAIL = Detail("ValueError", "no", "Traceback", b"pickle", 1.0)
SEEDS = (
    BatchStarted(1, "e", "host:1", 2.0),
    BatchProgress(1, "e", "host:1", 1, 2.0, bytes([1, 3]), {1: DETAIL}, (LINE,)),
    Call("id", 1, "e", 0, "submit", b"payload"),
    Table(
        1, "e", "host:1", 2.0, bytes([1, 3]), array("d", [0.0, 1.0]), array("d", [1.0, 1.0]),
        {1: DETAIL}, {0: 3}, (LINE,), (Stored("file:///r", "abc"),), {0: "name"}, missing=(4,), missing_files=("file:///s",),
    ),
)  # fmt: skip


def test_one_input(data: bytes) -> None:
    try:
        message = codec.unpack(data)
    except InternalError:
        return
    assert codec.unpack(codec.pack(message)) == message


def sow(folder: Path) -> None:
    """Give the fuzzer a message of each kind to begin with."""
    for number, message in enumerate(SEEDS):
        (folder / f"seed-{number}").write_bytes(codec.pack(message))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if not argument.startswith("-"):
            sow(Path(argument))
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
