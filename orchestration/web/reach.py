"""Whether the store can be reached, told soon, also where a store waits a minute for its database to come back."""

from __future__ import annotations

from runners.errors import BackendError

from ..stores.base import Store
from .asking import Question

PATIENCE_SECONDS = 2.0  # pages give an answer 4


class Reach:
    """Asks the store, once at a time however many want to know."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._question = Question(self._ask)

    async def trouble(self) -> str | None:
        """Return why the store cannot be reached, None if it can."""
        asked = await self._question.answer(PATIENCE_SECONDS)
        if asked is not None:
            return asked.result()
        return f"The store {self._store.url} does not answer. Runs wait for it, too; this page goes on by itself."

    def _ask(self) -> str | None:
        try:
            self._store.runs(limit=1)
        except BackendError as error:
            return str(error)
        return None
