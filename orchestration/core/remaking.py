"""Results that are gone and still needed are made again, and with them what they are made from.

An item that has completed stays Completed, whatever becomes of its result: who was told so was told the truth, and
what followed from it holds. A batch that makes results again (`Flight.remake`) moves no state. What needs a result
that is gone waits Pending, is charged nothing, and is Crashed if the result cannot be made again.

Needed is what an item reads that could run now, what user code asks for, and what these are made from. A result that
nobody needs is not made again, however many were lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runners.messages import Stored

from .commands import CancelBatches, ReleaseBatches
from .ledger import Ledger, compact
from .records import INLINE, MAIN, Flight, Node, Reach
from .releasing import Releasing
from .states import TERMINAL, Cause, State
from .triggers import FAILURE, all_successful
from .verdicts import label

MAX_REMAKES = 20  # of one result: it is nobody's fault that it is lost, but this does not go on for ever
CANNOT = "and cannot be made again"
WHOLE = -1  # in the place of an index: all items of the node

Result = tuple[int, int]  # node_id, index
Files = tuple[dict[int, tuple[Stored, int]], dict[str, list[int]]]  # where items' results are; items by file


@dataclass(slots=True, eq=False)
class Claim:
    """Items that wait for results: readers, or (remake) items whose own results are to be made again from them."""

    node: Node
    indices: Sequence[int]
    missing: set[Result]
    remake: bool
    over: bool = False


class Remaking:
    """Knows which results are wanted again, and who waits for them."""

    def __init__(
        self, ledger: Ledger, releasing: Releasing, ready: Callable[[Node, Sequence[int]], None]
    ) -> None:
        self.ledger = ledger
        self.releasing = releasing
        self.ready = ready  # takes items that may run
        self.due: deque[tuple[Node, Sequence[int]]] = deque()  # may go to the engine, to be made again
        self._wanted: set[Result] = set()  # being made again, or waiting for what they are made from
        self._claims: dict[Result, list[Claim]] = {}  # by what they wait for
        self._files: dict[int, Files] = {}  # by node
        self._woken: dict[int, Node] = {}  # released nodes whose results are made again for a while

    # --- losing ---------------------------------------------------------------------------------

    def lost(self, batch_ids: Iterable[int], reason: str) -> list[Flight]:
        """Note that results are gone. Returns the batches that wait for leases and would read them."""
        flights = self.ledger.flights
        gone = {b for b in batch_ids if b in flights and flights[b].over and flights[b].runner == MAIN}
        by_node: dict[Node, list[int]] = {}
        for batch_id in sorted(gone):
            for node in flights[batch_id].nodes:
                by_node.setdefault(node, []).append(batch_id)
        touched = [self._lose(node, own, reason) for node, own in by_node.items()]
        if not any(touched):
            return []
        self.ledger.emit(ReleaseBatches(tuple(sorted(gone))))
        return self._starving()

    def unstored(self, node: Node, urls: Collection[str], reason: str) -> list[Flight]:
        """Note that files with results of a node are of no use any more. Returns the same as `lost`."""
        if not node.known.recovered:
            return []
        stored, by_url = self._in_files(node)
        useless = [i for url in urls for i in by_url.pop(url, ())]
        lost = [i for i in useless if node.batches[i] < 0]
        if lost:
            self._note(node, lost, reason)
        for index in useless:
            del stored[index]
        return self._starving() if lost else []

    def _note(self, node: Node, lost: Sequence[int], reason: str) -> None:
        """Note that results are lost: before they cannot be found any more, since other threads look for them."""
        node.holes = True
        node.facts.losses.put(sorted(lost), reason, node.width)

    def _in_files(self, node: Node) -> Files:
        """Return which results of a node are read from storage, to be changed in place."""
        known = self._files.get(node.node_id)
        if known is None:
            stored = {i: place for i, place in node.known.recovered.items() if i < node.width}
            by_url: dict[str, list[int]] = {}
            for index, (file, _) in stored.items():
                by_url.setdefault(file.url, []).append(index)
            node.facts.recovered = stored
            known = self._files[node.node_id] = stored, by_url
        return known

    def _starving(self) -> list[Flight]:
        """Return the batches that wait for leases and would read what is gone."""
        forming = [flight for flight in self.ledger.live.values() if not flight.submitted]
        return [flight for flight in forming if self.lacks(flight.node, flight.indices)]

    def _lose(self, node: Node, batch_ids: Sequence[int], reason: str) -> bool:
        """Forget that results are in these batches. Stored ones are read from storage from now on."""
        known, lost = node.known, list[int]()
        places = [
            (known.files.get(b), here)
            for b in batch_ids
            if (here := [i for i in self.ledger.flights[b].indices if node.batches[i] == b])
        ]
        for stored, here in places:
            if stored is None:
                lost += here
                continue
            node.facts.recovered = {**known.recovered, **{i: (stored, node.positions[i]) for i in here}}
            self._files.pop(node.node_id, None)
        if lost:
            self._note(node, lost, reason)
        for _, here in places:
            for index in here:
                node.batches[index] = -1
        return bool(places)

    # --- asking ---------------------------------------------------------------------------------

    def lacks(self, node: Node, indices: Sequence[int]) -> bool:
        """Whether one of these items reads a result that is gone."""
        return bool(self._missing(node, indices))

    def hold(self, node: Node, indices: Sequence[int]) -> Sequence[int]:
        """Hold back items that read what is gone, and have that made again. Returns those that lack nothing."""
        if not any(edge.up.holes for edge in node.ins) or not self.lacks(node, indices):
            return indices
        starved = [i for i in indices if self.lacks(node, (i,))]
        self.starve(node, compact(sorted(starved)))
        return compact([i for i in indices if i not in frozenset(starved)])

    def starve(self, node: Node, indices: Sequence[int]) -> None:
        """Let items that read what is gone wait for it."""
        first = next(iter(self._missing(node, indices)))
        self.ledger.move(node, indices, Cause.INPUT_LOST, f"{self._loss(first)}; it is made again")
        self._want(self._claim(node, indices, remake=False))

    def want(self, node: Node, indices: Sequence[int]) -> None:
        """Have results made again that user code asks for."""
        for index in indices:
            if node.gone(index) and index not in node.known.hopeless:
                result = node.node_id, index
                self._claims.setdefault(result, []).append(Claim(node, (), {result}, remake=False))
        self._want([(node, indices)])

    def _want(self, wanted: list[tuple[Node, Sequence[int]]]) -> None:
        while wanted:
            node, indices = wanted.pop()
            fresh = [i for i in indices if self._is_new(node, i)]
            if not fresh:
                continue
            if node.released:
                self._woken[node.node_id] = node
            why = _forbidden(node)
            if why:
                wanted += self._give_up(node, fresh, why)
                continue
            again, tired = list[int](), list[int]()
            for index in fresh:
                spent = node.budget(index)
                spent.remakes += 1
                (again if spent.remakes <= MAX_REMAKES else tired).append(index)
            self._wanted.update((node.node_id, i) for i in again)
            wanted += self._claim(node, again, remake=True)
            wanted += self._give_up(node, tired, f"it has been lost {MAX_REMAKES + 1} times")

    def _is_new(self, node: Node, index: int) -> bool:
        """Whether a result is to be made again that was not yet: somebody waits for it who has not given up."""
        result = node.node_id, index
        if not node.gone(index) or result in self._wanted or index in node.known.hopeless:
            return False
        return any(not claim.over for claim in self._claims.get(result, ()))

    def _claim(self, node: Node, indices: Sequence[int], *, remake: bool) -> list[tuple[Node, Sequence[int]]]:
        """Let items wait for what they lack; return that, to be wanted. Those that lack nothing go on."""
        if not len(indices):
            return []
        missing, unended = self._missing(node, indices), dict[Result, None]()
        nodes = self.ledger.nodes
        if remake and node.spec.recovered is not None:
            spoiled = self._spoiled(node, indices)
            if spoiled:
                return self._without(node, indices, spoiled, remake=True)
            unended = self._unended(node, indices)
        if any(i in nodes[up].known.hopeless for up, i in missing):
            return self._part(node, indices, remake=remake)
        claim = Claim(node, indices, {*missing, *unended}, remake)
        if not claim.missing:
            self._go_on(claim)
            return []
        for result in unended:
            self._claims.setdefault(result, []).append(claim)
        by_node: dict[int, list[int]] = {}
        for up, index in missing:
            self._claims.setdefault((up, index), []).append(claim)
            by_node.setdefault(up, []).append(index)
        return [(nodes[up], members) for up, members in by_node.items()]

    def _part(self, node: Node, indices: Sequence[int], *, remake: bool) -> list[tuple[Node, Sequence[int]]]:
        """Give up those of some items that read what cannot be made again; the others wait on."""
        nodes, doomed = self.ledger.nodes, dict[int, str]()
        for index in indices:
            found = [(up, i) for up, i in self._missing(node, (index,)) if i in nodes[up].known.hopeless]
            if found:
                up, i = found[0]
                doomed[index] = f"{self._loss(found[0])} {CANNOT}: {nodes[up].known.hopeless[i]}"
        return self._without(node, indices, doomed, remake=remake)

    def _without(
        self, node: Node, indices: Sequence[int], doomed: Mapping[int, str], *, remake: bool
    ) -> list[tuple[Node, Sequence[int]]]:
        """Give up some of the items, for these reasons; claim for the others."""
        wanted = self._claim(node, compact([i for i in indices if i not in doomed]), remake=remake)
        by_reason: dict[str, list[int]] = {}
        for index, why in doomed.items():
            by_reason.setdefault(why, []).append(index)
        for why, members in by_reason.items():
            if remake:
                wanted += self._give_up(node, members, why)
            else:
                pending = [i for i in members if node.states[i] == State.PENDING]
                self.ledger.move(node, compact(sorted(pending)), Cause.LOST_FOR_GOOD, why)
        return wanted

    def _missing(self, node: Node, indices: Sequence[int]) -> dict[Result, None]:
        """Return which results items read that are gone."""
        found: dict[Result, None] = {}
        for edge in node.ins:
            up = edge.up
            if up.holes:
                found.update(((up.node_id, i), None) for i in edge.read_by(indices) if up.gone(i))
        return found

    def _unended(self, node: Node, indices: Sequence[int]) -> dict[Result, None]:
        """Return what has not ended yet in this process, of what an earlier one had made these items' results from."""
        found: dict[Result, None] = {}
        for edge in node.ins:
            up = edge.up
            if edge.dead or not up.unfinished:
                continue
            if not up.opened or edge.dependency.reach is Reach.ALL:
                found[up.node_id, WHOLE] = None
            else:
                members = edge.waited_for_by(indices)
                found.update(((up.node_id, i), None) for i in members if up.states[i] not in TERMINAL)
        return found

    def _spoiled(self, node: Node, indices: Sequence[int]) -> dict[int, str]:
        """Return for which items, and why, what an earlier process made their results from is not to be had now."""
        policy, found = node.policy, dict[int, str]()
        if policy.trigger is not all_successful:
            return found
        bad = FAILURE | {State.SKIPPED} if policy.skip_on_upstream_skip else FAILURE
        for edge in node.ins:
            up = edge.up
            if edge.dependency.tolerant or not any(up.counts[state] for state in bad):
                continue
            for index in indices:
                for i in edge.waited_for_by((index,)) if up.opened else ():
                    if up.states[i] in bad:
                        found[index] = f"{label(up, i)}, which it builds upon, is {up.state(i).title} now"
                        break
        return found

    def _loss(self, result: Result) -> str:
        """Say in words that a result is gone."""
        node_id, index = result
        node = self.ledger.nodes[node_id]
        reason = node.known.losses.get(index)
        how = f"was lost ({reason})" if reason else "had been released"
        return f"the result of {label(node, index)} {how}"

    # --- answering ------------------------------------------------------------------------------

    def made(self, node: Node, indices: Iterable[int]) -> None:
        """Results are there again: let go on who waited for them."""
        for index in indices:
            result = node.node_id, index
            self._wanted.discard(result)
            for claim in self._claims.pop(result, ()):
                claim.missing.discard(result)
                if not claim.missing and not claim.over:
                    self._go_on(claim)

    def ended(self, node: Node, indices: Iterable[int]) -> None:
        """Items have ended in this process: what waited for that, to be made again, looks what it lacks now."""
        if not self._claims:
            return
        results = [result for result in ((node.node_id, i) for i in indices) if result in self._claims]
        if not node.unfinished and (node.node_id, WHOLE) in self._claims:
            results.append((node.node_id, WHOLE))
        if results:
            self._want(self._ask_anew(results))

    def give_up(self, node: Node, indices: Sequence[int], why: str) -> None:
        """Results cannot be made again: neither can what is made from them, and readers are Crashed."""
        self._want(self._give_up(node, indices, why))

    def _give_up(self, node: Node, indices: Sequence[int], why: str) -> list[tuple[Node, Sequence[int]]]:
        """Give up results; return what those need that waited for these and for others, too."""
        if len(indices):
            node.facts.hopeless.update(dict.fromkeys(indices, why))
        results = [(node.node_id, index) for index in indices]
        self._wanted.difference_update(results)
        return self._ask_anew(results)

    def _ask_anew(self, results: Iterable[Result]) -> list[tuple[Node, Sequence[int]]]:
        """Let those look what they lack who wait for results; return what is to be made again for them."""
        claims: dict[int, Claim] = {}
        for result in results:
            for claim in self._claims.pop(result, ()):
                if not claim.over:
                    claims[id(claim)] = claim
        wanted: list[tuple[Node, Sequence[int]]] = []
        for claim in claims.values():
            claim.over = True
            if claim.remake:  # asked for anew, they find out
                self._wanted.difference_update((claim.node.node_id, i) for i in claim.indices)
                for index in claim.indices:
                    claim.node.budget(index).remakes -= 1
                wanted.append((claim.node, claim.indices))
            else:
                pending = [i for i in claim.indices if claim.node.states[i] == State.PENDING]
                wanted += self._claim(claim.node, compact(pending), remake=False)
        return wanted

    def _go_on(self, claim: Claim) -> None:
        claim.over = True
        if claim.remake:
            self.due.append((claim.node, claim.indices))
            return
        node = claim.node
        pending = compact([i for i in claim.indices if node.states[i] == State.PENDING])
        self.ledger.move(node, pending, Cause.UPSTREAM_DONE)
        if len(pending):
            self.ready(node, pending)

    def is_waiting(self, node: Node, index: int) -> bool:
        """Whether an item waits for results that are made again."""
        return any(
            claim.node is node and index in claim.indices and not claim.over
            for claims in self._claims.values()
            for claim in claims
        )

    # --- the way to the engine --------------------------------------------------------------------

    def take(self, size_of: Callable[[Node, int], int]) -> tuple[Node, Sequence[int]]:
        """Return items for the next batch that makes results again: none if those have become superfluous."""
        node, indices = self.due.popleft()
        wanted = [i for i in indices if (node.node_id, i) in self._wanted]
        if self.lacks(node, wanted):  # lost since
            self._want(self._claim(node, compact(wanted), remake=True))
            return node, ()
        alone = [i for i in wanted if node.budget(i).suspicious]
        size = 1 if alone else size_of(node, len(wanted))
        wanted = alone + [i for i in wanted if i not in frozenset(alone)]
        if len(wanted) > size:
            self.due.appendleft((node, wanted[size:]))
        return node, compact(sorted(wanted[:size]))

    def again(self, node: Node, indices: Sequence[int]) -> None:
        """Items are to be tried again."""
        if len(indices):
            self.due.append((node, indices))

    def starved(self, node: Node, indices: Sequence[int]) -> None:
        """What items are made from was lost when they were to be made again."""
        self._want(self._claim(node, compact(sorted(indices)), remake=True))

    def keeps(self, node: Node, indices: Iterable[int]) -> Collection[int]:
        """Return which of some items' results are still wanted."""
        return {i for i in indices if (node.node_id, i) in self._wanted}

    def settle(self) -> None:
        """Release again what was made again only for the sake of others, once nothing is wanted any more."""
        if self._woken and not self._wanted:
            woken, self._woken = self._woken, {}
            for node in woken.values():
                self.releasing.again(node)

    def stop(self, why: str) -> None:
        """Make nothing again any more: the run ends."""
        nodes = self.ledger.nodes
        for node_id, index in self._wanted:
            nodes[node_id].facts.hopeless[index] = why
        self._wanted.clear()
        self._claims.clear()
        self.due.clear()
        remakes = [f for f in self.ledger.live.values() if f.remake and f.submitted and not f.cancelling]
        for flight in remakes:
            flight.cancelling = True
        if remakes:
            self.ledger.emit(CancelBatches(tuple(flight.batch_id for flight in remakes)))


def _forbidden(node: Node) -> str:
    """Return why the results of a node may not be made again, or ""."""
    if not node.policy.rerun_on_loss:
        return "its task must not run twice (rerun_on_loss=False)"
    if node.spec.runner == INLINE:
        return "it was called, and only its caller had the result"
    return ""
