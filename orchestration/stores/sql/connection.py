"""What the statements need of a database's driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows that a statement has found."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection within a transaction.

    Attributes:
        for_update: what a SELECT ends with that reads what its transaction will change. Where writers have the
            database to themselves, nothing; else it makes others wait who want to change the same rows.
    """

    @property
    def for_update(self) -> str: ...

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run a statement; `?` stands for a value."""

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Any:
        """Run a statement for each row of values."""

    def insert(self, table: str, columns: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
        """Add many rows in the fastest way there is."""
