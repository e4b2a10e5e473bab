"""From "these items of that node" to a batch that a runner can run: arguments, inputs, code.

The core knows items and where results are; what the values are is known here only.
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from runners.arguments import Aligned, Arguments, Column, Element, Ref, Shared, Source, Static
from runners.body import TaskBody
from runners.codec import dump_payload
from runners.context import RunContext
from runners.errors import ResultLostError
from runners.messages import Batch, Input, Payload, Stage, Stored

from ..core.commands import SubmitBatch
from ..core.records import MAIN, Node
from ..core.states import State
from ..errors import InternalError
from .outcomes import exception_of

KEPT_BYTES = 256 << 20  # of pickled arguments of ended nodes


class InputGone(Exception):
    """A result that a batch reads was lost after the core had formed the batch, in the same turn."""


@dataclass(frozen=True, slots=True)
class NodePayload:
    """What a node's items are called with.

    Attributes:
        args, kwargs: sources for all items of the node; a `Column` has all their values.
        shared: refs that every item needs.
        picked: refs that only some items need, by index.
    """

    body: TaskBody
    args: tuple[Source, ...]
    kwargs: Mapping[str, Source]
    shared: tuple[Ref, ...] = ()
    picked: Mapping[int, Sequence[Ref]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[Source, ...]:
        return (*self.args, *self.kwargs.values())

    def parameter_names(self) -> list[str]:
        return list(inspect.signature(self.body.fn).parameters)


class Packer:
    """Makes batches for one runner. Used from the driver's thread, and by threads that run tasks inline.

    Attributes:
        keeps: whether results may be lost, and so what items are called with is kept when they have ended. Results
            that never leave this process cannot; those that an earlier one has stored can, wherever items run.
    """

    def __init__(self, run: RunContext, nodes: dict[int, Node], *, in_process: bool, keeps: bool) -> None:
        self._run = run
        self._nodes = nodes
        self._in_process = in_process
        self.keeps = keeps
        self._payloads: dict[int, NodePayload] = {}
        self._bodies: dict[
            int, tuple[TaskBody, Payload]
        ] = {}  # by id; the body is kept so that it stays its own
        self._shared: dict[int, Payload] = {}  # by node
        self._handed: dict[int, tuple[int, Payload]] = {}  # arguments by node that rides behind another
        self._sizes: dict[int, int] = {}  # by node that has not ended: bytes of its arguments so far
        self._kept: dict[int, int] = {}  # by node that has: bytes of its arguments
        self._kept_bytes = 0
        self._context: Payload | None = None

    def add(self, node_id: int, payload: NodePayload) -> None:
        self._payloads[node_id] = payload

    def ended(self, node_id: int) -> None:
        """A node's items have all ended. What they were called with is kept in case that their results are lost.

        Not where they cannot be lost, or not be made again, nor more than KEPT_BYTES of all ended nodes.
        """
        if node_id not in self._payloads or node_id in self._kept:
            return
        node, size = self._nodes[node_id], self._sizes.pop(node_id, 0)
        may_return = self.keeps and node.spec.runner == MAIN and node.policy.rerun_on_loss
        if may_return and self._kept_bytes + size <= KEPT_BYTES:
            self._kept[node_id] = size
            self._kept_bytes += size
        else:
            self.forget((node_id,))

    def forget(self, node_ids: Iterable[int]) -> None:
        """No item of these nodes will run again: let go of what they were called with."""
        for node_id in node_ids:
            self._payloads.pop(node_id, None)
            self._shared.pop(node_id, None)
            self._handed.pop(node_id, None)
            self._kept_bytes -= self._kept.pop(node_id, 0)

    def pack(self, command: SubmitBatch, *, live: bool | None = None) -> Batch:
        """Return the batch that a command asks for.

        Args:
            live: whether payloads are live objects; None: as the runner needs them.

        Raises:
            Exception: whatever pickling the user's values raised.
        """
        live = self._in_process if live is None else live
        if command.node_id not in self._payloads:
            raise ResultLostError(
                f"what {self._nodes[command.node_id].spec.path} was called with is not kept any more: flows keep "
                f"{KEPT_BYTES >> 20} MiB of arguments of tasks that have ended. Store its results with "
                "persist_result=True, or pass references to large data instead of the data"
            )
        stages = [self._stage(command, command.node_id, command.attempts, live)]
        for before, f in zip(command.node_ids, command.fused, strict=False):
            stages.append(self._stage(command, f.node_id, f.attempts, live, before if f.follows else None))
        return Batch(
            run_id=self._run.run_id,
            batch_id=command.batch_id,
            indices=command.indices,
            stages=tuple(stages),
            context=Payload(value=self._run) if live else self._run_context(),
            inputs=tuple(self._inputs(command, live)),
            deadline_seconds=command.deadline_seconds,
            priority=self._nodes[command.node_id].policy.priority,
            options=self._payloads[command.node_id].options,
        )

    def _stage(
        self,
        command: SubmitBatch,
        node_id: int,
        attempts: Sequence[int],
        live: bool,
        before: int | None = None,
    ) -> Stage:
        """Return a node's part in a batch, which follows that of the node `before`, if one is given."""
        node, payload = self._nodes[node_id], self._payloads[node_id]
        split = not live and node.width > 1 and any(type(source) is Static for source in payload.sources)
        shared = self._static(node_id) if split else None
        if before is not None and not live and _handed_on(payload, before, split):
            arguments = self._handed_arguments(node_id, before, split)
        else:
            arguments = _payload(_arguments(payload, command.indices, split), live)
        if not live and node.unfinished:
            known = self._sizes.get(node_id, 0 if shared is None else shared.nbytes)
            self._sizes[node_id] = known + (0 if arguments.digest else arguments.nbytes)
        return Stage(
            node_id=node_id,
            task_name=node.spec.task_name,
            body=Payload(value=payload.body) if live else self._body(node_id),
            arguments=arguments,
            attempts=attempts,
            timeout_seconds=node.policy.timeout_seconds,
            permit=command.permit,
            shared=shared,
            follows=before is not None,
        )

    def _handed_arguments(self, node_id: int, before: int, split: bool) -> Payload:
        """Return the arguments of a stage that takes what the stage before leaves: the same for all batches."""
        known = self._handed.get(node_id)
        if known is None or known[0] != before:
            arguments = _arguments(self._payloads[node_id], None, split)
            known = self._handed[node_id] = before, dump_payload(arguments, cached=True)
        return known[1]

    def _static(self, node_id: int) -> Payload:
        """Return the arguments that are the same for all items of a map, pickled once for all its batches."""
        known = self._shared.get(node_id)
        if known is None:
            static = [source for source in self._payloads[node_id].sources if type(source) is Static]
            known = self._shared[node_id] = dump_payload(static, cached=True)
        return known

    def blame(self, command: SubmitBatch, error: Exception) -> str:
        """Say which argument, or the function, cannot be pickled."""
        payload = self._payloads[command.node_id]
        named = [(f"argument {n + 1}", source) for n, source in enumerate(payload.args)]
        named += [(f"argument {name!r}", source) for name, source in payload.kwargs.items()]
        names = payload.parameter_names()
        for n, (words, source) in enumerate(named):
            label = f"argument {names[n]!r}" if n < len(payload.args) and n < len(names) else words
            if isinstance(source, Column):
                for index in command.indices:
                    where = path_to_unpicklable(source.values[index])
                    if where is not None:
                        return f"item {index} of the map: {label}{where}"
                continue
            where = path_to_unpicklable(_cut(source, command.indices))
            if where is not None:
                return label + where
        return "the function"

    def _body(self, node_id: int) -> Payload:
        """Return the pickled code of a node; nodes of one task share it."""
        body = self._payloads[node_id].body
        known = self._bodies.get(id(body))
        if known is None:
            pickle_user_code_by_value(body.fn)
            known = self._bodies[id(body)] = body, dump_payload(body, cached=True)
        return known[1]

    def _run_context(self) -> Payload:
        if self._context is None:
            self._context = dump_payload(_portable(self._run), cached=True)
        return self._context

    # --- inputs ---------------------------------------------------------------------------------

    def _inputs(self, command: SubmitBatch, live: bool) -> Iterable[Input]:
        """Yield where the upstream results are that the items need, each upstream item once.

        What one stage of a batch makes for the next is not among them: the worker hands it on.
        """
        indices, node_ids = command.indices, frozenset(command.node_ids)
        wanted: dict[int, range | dict[int, None]] = {}

        def want(node_id: int, members: Iterable[int]) -> None:
            known = wanted.get(node_id)
            if known is None and isinstance(members, range) and members.step == 1:
                wanted[node_id] = members
            elif known != members:
                wanted[node_id] = dict.fromkeys(chain(known or (), members))

        def want_ref(ref: Ref) -> None:
            if ref.index is not None:
                want(ref.node_id, (ref.index,))
            else:
                want(
                    ref.node_id, range(self._nodes[ref.node_id].width) if ref.indices is None else ref.indices
                )

        for payload in map(self._payloads.__getitem__, command.node_ids):
            for ref in payload.shared:
                want_ref(ref)
            for index in indices if payload.picked else ():
                for ref in payload.picked.get(index, ()):
                    want_ref(ref)
            for source in payload.sources:
                if isinstance(source, Aligned) and source.node_id not in node_ids:
                    want(source.node_id, _aligned(source, indices))
        for node_id in node_ids:
            wanted.pop(node_id, None)
        for node_id, members in wanted.items():
            yield from self._locate(self._nodes[node_id], members, live)

    def _locate(self, up: Node, members: range | dict[int, None], live: bool) -> Iterable[Input]:
        """Group upstream items by where their results are: batches, files, or here."""
        by_batch: dict[int, Sequence[int]] = {}
        if isinstance(members, range):
            for batch_id, run in up.batch_runs(members):
                by_batch[batch_id] = [*by_batch[batch_id], *run] if batch_id in by_batch else run
        else:
            for index in members:
                by_batch.setdefault(up.batches[index], []).append(index)  # type: ignore[attr-defined]
        elsewhere = by_batch.pop(-1, ())
        for batch_id, indices in by_batch.items():
            positions = up.positions_of(indices)
            yield Input(up.node_id, indices, positions, batch_id=batch_id, stage=up.stage_in(batch_id))
        by_file: dict[Stored, tuple[list[int], list[int]]] = {}
        literal: list[int] = []
        for index in elsewhere:
            if up.states[index] == State.COMPLETED and index in up.stored:
                stored, position = up.stored[index]
                found = by_file.setdefault(stored, ([], []))
                found[0].append(index)
                found[1].append(position)
            else:
                literal.append(index)
        for stored, (indices, positions) in by_file.items():
            yield Input(up.node_id, indices, positions, stored=stored)
        if literal:
            values = [self._absent(up, i) for i in literal]
            yield Input(up.node_id, literal, range(len(literal)), literal=_payload(values, live))

    def _absent(self, up: Node, index: int) -> Any:
        """Return what stands for the result of an item that has none: None if skipped, else its exception."""
        if up.states[index] == State.SKIPPED:
            return None
        if up.gone(index):
            raise InputGone(f"the result of {up.spec.path}[{index}] was lost when it was to be read")
        error = exception_of(up, index, self._nodes)
        if error is None:
            raise InternalError(
                f"{up.spec.path}[{index}] is {up.state(index).title} but its result is nowhere"
            )
        return error


def _payload(value: Any, live: bool) -> Payload:
    return Payload(value=value) if live else dump_payload(value)


def _handed_on(payload: NodePayload, before: int, split: bool) -> bool:
    """Whether items take nothing but what the stage before leaves for each, and what batches share anyway.

    Workers keep such arguments, so there must be no value of the user's among them: he may write to it.
    """
    return all(
        (split and type(source) is Static)
        or (isinstance(source, Aligned) and source.node_id == before and source.indices is None)
        for source in payload.sources
    )


def _arguments(payload: NodePayload, indices: Sequence[int] | None, split: bool) -> Arguments:
    """Cut the arguments of some items out of those of the node; with `split`, without static ones.

    Without indices, what the stage before leaves stays as it is: a worker takes that by position.
    """
    numbers = count()

    def cut(source: Source) -> Source:
        if split and type(source) is Static:
            return Shared(next(numbers))
        return source if indices is None else _cut(source, indices)

    return Arguments(tuple(map(cut, payload.args)), {name: cut(s) for name, s in payload.kwargs.items()})


def _cut(source: Source, indices: Sequence[int]) -> Source:
    match source:
        case Static() | Shared():
            return source
        case Column(values, template):
            if isinstance(indices, range) and indices.step == 1:
                return Column(values[indices.start : indices.stop], template)
            return Column([values[i] for i in indices], template)
        case Aligned(node_id, _):
            return Aligned(node_id, _aligned(source, indices))
        case Element(ref, _):
            return Element(ref, indices)


def _aligned(source: Aligned, indices: Sequence[int]) -> Sequence[int]:
    """Return the upstream items of these items; a node-wide `Aligned` without indices is the identity."""
    if source.indices is None:
        return indices
    if isinstance(source.indices, range) and isinstance(indices, range) and indices.step == 1:
        return source.indices[indices.start : indices.stop]
    return [source.indices[i] for i in indices]


def _portable(run: RunContext) -> RunContext:
    """Leave out flow parameters that cannot travel: tasks may look at them, few do."""
    try:
        cloudpickle.dumps(run)
        return run
    except Exception:  # a user's object may raise anything
        kept = {}
        for name, value in run.parameters.items():
            try:
                cloudpickle.dumps(value)
                kept[name] = value
            except Exception:
                continue
        return replace(run, parameters=kept)


def _picklable(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:  # a user's __reduce__ may raise anything
        return False
    return True


def path_to_unpicklable(value: Any, path: str = "", depth: int = 0) -> str | None:
    """Return where in a value the part is that cannot be pickled, such as `[3].lock`; None if there is none."""
    if _picklable(value):
        return None
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, Static):
        return path_to_unpicklable(value.value, path, depth)
    if isinstance(value, dict):
        parts = ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"[{n}]", part) for n, part in enumerate(value))
    elif hasattr(value, "__dict__"):
        parts = ((f".{name}", part) for name, part in vars(value).items())
    for step, part in parts if depth < 8 else ():
        found = path_to_unpicklable(part, path + step, depth + 1)
        if found is not None:
            return found
    return f"{path} (a {type(value).__qualname__})"


_registered: set[str] = set()
_lock = threading.Lock()
_LIBRARY = tuple(
    {str(Path(sysconfig.get_path(key)).resolve()) for key in ("stdlib", "purelib", "platlib") if key}
)
_OURS = tuple(str(Path(__file__).resolve().parents[2] / name) + "/" for name in ("orchestration", "runners"))


def pickle_user_code_by_value(fn: Any) -> None:
    """Let cloudpickle carry the module of a user's function along, unless it is an installed one.

    A flow's file is rarely importable on a worker; what is installed is, and by reference is cheaper.
    """
    module = sys.modules.get(getattr(fn, "__module__", None) or "")
    if module is None or module.__name__ in _registered or module.__name__ == "__main__":
        return
    if _is_user_code(module):
        with _lock:
            _registered.add(module.__name__)
            cloudpickle.register_pickle_by_value(module)


def _is_user_code(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not file:
        return False
    path = str(Path(file).resolve())
    return not path.startswith((*_LIBRARY, *_OURS))
