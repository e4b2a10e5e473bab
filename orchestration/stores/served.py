"""What a server needs of its store, beside the runs: who may use it, who did what, and what has changed."""

from __future__ import annotations

import abc

from .audit import AuditRow
from .base import Store
from .replay import ItemStates
from .tokens import TokenRow


class ServedStore(Store):
    """A store that a server can be put before. One that is reached by way of a server is none."""

    @abc.abstractmethod
    def states_since(self, run_id: str, node_id: int, before: ItemStates) -> ItemStates:
        """Return the states of a node's items, `ItemStates()` for one that is not there.

        Args:
            before: an earlier answer: only what has been written since is read. `ItemStates()`: all is. An answer from
                before a run that was given up for dead was found alive is to be forgotten: its ends are gone.
        """

    @abc.abstractmethod
    def add_token(self, token: TokenRow) -> None:
        """Record a token.

        Raises:
            UserError: there is one of this name.
        """

    @abc.abstractmethod
    def tokens(self) -> list[TokenRow]:
        """Return all tokens, oldest first, those that have expired, too."""

    @abc.abstractmethod
    def token(self, token_id: str) -> TokenRow | None:
        """Return the token of an id."""

    @abc.abstractmethod
    def remove_token(self, token_id: str) -> bool:
        """Forget a token, so that it is refused from now on; return whether it was there."""

    @abc.abstractmethod
    def token_used(self, token_id: str, now: float) -> None:
        """Note that a token was used, unless that was noted less than USED_EVERY_SECONDS ago."""

    @abc.abstractmethod
    def add_audit(self, row: AuditRow) -> None:
        """Record an action, with a `seq` above those that are there."""

    @abc.abstractmethod
    def audit(self, *, before: int | None = None, limit: int = 100) -> list[AuditRow]:
        """Return actions, newest first, with a `seq` below `before`."""

    @abc.abstractmethod
    def audit_older(self, at: float) -> int:
        """Return how many actions are older than a time."""

    @abc.abstractmethod
    def prune_audit(self, at: float) -> int:
        """Forget actions older than a time; return how many."""
