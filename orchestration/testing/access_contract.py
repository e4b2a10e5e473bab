"""Tokens and the audit trail, in every store that a server can be put before. Beside `store_contract.StoreContract`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ..core.journal import Entry, Moved, WidthLearned
from ..core.states import State
from ..errors import UserError
from ..stores.audit import AuditRow
from ..stores.replay import ItemStates
from ..stores.served import ServedStore
from ..stores.tokens import USED_EVERY_SECONDS, Role, mint
from .store_entries import NOW, ended, new_run, node


class AccessContract:
    """Who may use a server is found by id, forgotten for good, and nothing of a secret is kept."""

    def test_states_of_items_go_on_where_they_ended(self, store: ServedStore) -> None:
        """With what was written since, also where a width is learned meanwhile; from nothing they are whole."""
        run_id = new_run(store)
        store.append(run_id, 1, [node(7, width=None)])
        seen = store.states_since(run_id, 7, ItemStates())
        assert seen.states == b""
        written: list[list[Entry]] = [
            [WidthLearned(7, 6), Moved(7, range(6), State.READY, NOW)],
            [ended(7, [4, 1], State.FAILED)],
            [],
            [Moved(7, [1], State.AWAITING_RETRY, NOW), ended(7, range(2, 4), State.COMPLETED, batch_id=2)],
        ]
        for entries in written:
            store.append(run_id, 1, entries)
            before, seen = seen, store.states_since(run_id, 7, seen)
            assert seen == store.states_since(run_id, 7, ItemStates())
            assert seen.states == store.states(run_id, 7)
            assert (seen.seq > before.seq) == bool(entries)
        wrong = ItemStates(bytes([State.CRASHED]) * 6, seen.seq)
        assert store.states_since(run_id, 7, wrong) == wrong, "what was read before is not read again"
        assert store.states_since(run_id, 8, ItemStates()) == ItemStates()

    def test_tokens_are_kept_as_they_were_made(self, store: ServedStore) -> None:
        """Oldest first, with and without an end, also expired ones; one that is not there is None."""
        first, _ = mint("first", Role.READ, NOW)
        second, _ = mint("zweites, für später", Role.ADMIN, NOW + 1, expires=NOW + 2)
        store.add_token(second)
        store.add_token(first)
        assert store.tokens() == [first, second]
        assert store.token(second.token_id) == second
        assert store.token("0" * 12) is None

    def test_one_token_of_a_name(self, store: ServedStore) -> None:
        """The other says which one is in the way; a revoked one is not."""
        first, second = mint("ci", Role.RUN, NOW)[0], mint("ci", Role.RUN, NOW)[0]
        store.add_token(first)
        with pytest.raises(UserError, match="'ci'"):
            store.add_token(second)
        assert store.tokens() == [first]
        assert store.remove_token(first.token_id)
        assert not store.remove_token(first.token_id)
        assert store.token(first.token_id) is None
        store.add_token(second)
        assert store.tokens() == [second]

    def test_the_last_use_is_noted_once_a_minute(self, store: ServedStore) -> None:
        """A token that is used all the time does not write all the time."""
        token, _ = mint("busy", Role.RUN, NOW)
        store.add_token(token)
        for after in (0.0, 1.0, USED_EVERY_SECONDS - 1):
            store.token_used(token.token_id, NOW + after)
        assert store.token(token.token_id) == replace(token, last_used=NOW)
        store.token_used(token.token_id, NOW + USED_EVERY_SECONDS)
        assert store.token(token.token_id) == replace(token, last_used=NOW + USED_EVERY_SECONDS)
        store.token_used("0" * 12, NOW)
        assert len(store.tokens()) == 1

    def test_no_secret_is_kept(self, store: ServedStore) -> None:
        """The row tells whether a secret fits, and does not show it."""
        token, text = mint("one", Role.READ, NOW)
        secret = text.rpartition(f"{token.token_id}_")[2]
        store.add_token(token)
        kept = store.token(token.token_id)
        assert kept is not None
        assert kept.fits(secret)
        assert not kept.fits(secret[:-1])
        assert secret not in repr(kept) + kept.digest

    def test_the_audit_trail_has_pages(self, store: ServedStore) -> None:
        """Newest first; texts from outside are kept whatever is in them."""
        for n in range(5):
            store.add_audit(
                AuditRow(NOW + n, "me", "ab", "192.0.2.1", "run.cancel", f"r{n}\ud800", "202 Accepted")
            )
        first = store.audit(limit=2)
        rest = store.audit(before=first[-1].seq, limit=10)
        assert [row.at - NOW for row in first + rest] == [4, 3, 2, 1, 0]
        assert first[0].target.startswith("r4")
        assert (first[0].who, first[0].client, first[0].outcome) == ("me", "192.0.2.1", "202 Accepted")

    def test_old_audit_rows_are_forgotten(self, store: ServedStore) -> None:
        """And no seq is given twice."""
        row = AuditRow(NOW, "", "", "", "login", "", "401 Unauthorized")
        for n in range(3):
            store.add_audit(replace(row, at=NOW + n))
        newest = store.audit()[0].seq
        assert store.audit_older(NOW + 2) == 2
        assert store.prune_audit(NOW + 2) == 2
        assert [one.at for one in store.audit()] == [NOW + 2]
        assert store.prune_audit(NOW + 9) == 1
        store.add_audit(row)
        assert store.audit()[0].seq > newest
