"""The audit trail: who did what by way of a server, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass

COMMAND_LINE = "command line"  # a client without an address
MAX_TEXT = 300  # characters of each text: some come from whoever asked


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One action that was asked for.

    Attributes:
        seq: grows with time; the store gives it.
        who: the name of the token, or the user of the machine; "" of somebody unknown.
        token_id: tells tokens apart that had one name after another.
        client: the address that it was asked from, or COMMAND_LINE.
        action: such as `run.cancel`.
        target: what it was done to: the id of a run, the name of a limit.
        outcome: `202 Accepted`, `403 Forbidden`; `done` on the command line.
    """

    at: float
    who: str
    token_id: str
    client: str
    action: str
    target: str
    outcome: str
    seq: int = 0
