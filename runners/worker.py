"""The far side: runs the items of a batch one after another, on whatever worker the engine chose.

`run_batch` never raises because of user code. It returns the results, which stay on the engine, and the
table, which travels back. Whatever an item does (raise, exit, hang past its timeout, return what cannot be
moved) is that item's outcome; the others of its batch are not touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextvars import copy_context
from typing import Any

from . import capture, codec
from .arguments import Arguments, Inputs
from .calling import COMPLETED, Ended, call, detail_of, is_async, traceback_of_stop
from .channel import Channel
from .context import ItemContext, RunContext, current_item
from .elements import NEVER, length
from .errors import ResultFileLostError, ResultLostError, TaskCancelledError, TaskTimeoutError
from .execution import CancelInterrupt, Execution, GaveWay, Interrupt, TimeoutInterrupt, late_message
from .held import Held
from .messages import Batch, Detail, Outcome, Payload, Stage, Table
from .monitor import monitor
from .relay import Relay
from .results import IMMUTABLE, CheckedResults, Frames, bytes_of, pack_values
from .storage import MISSING, ResultSerializationError, open_storage, read_stored

MAX_LOADED = 256  # unpickled bodies kept per worker process

CACHED = Outcome.CACHED

Fetched = Sequence[Any] | Held  # results of a stage of another batch
Results = list[list[Any]]  # by stage, by position; MISSING where an item has no result

_loaded: dict[str, Any] = {}


def run_batch(
    batch: Batch,
    fetched: Sequence[Fetched | None],
    channel: Channel,
    *,
    in_process: bool,
    guest_loop: asyncio.AbstractEventLoop | None = None,
) -> tuple[Results, Table]:
    """Run a batch and return its results and its table.

    Args:
        fetched: for each of `batch.inputs` with a batch_id the results of its stage, else None.
        in_process: whether results stay live objects; otherwise each must be picklable.
        guest_loop: where coroutines of the items run; it belongs to another thread. None: in a loop of their own.
    """
    cpu = time.thread_time()
    execution = Execution(batch, RunContext(batch.run_id, "", ""), channel, in_process=in_process)
    execution.guest_loop = guest_loop
    results: Results = [[MISSING] * len(batch.indices) for _ in batch.stages]
    monitor.add(execution)
    try:
        channel.emit(execution.started_event())
        inputs = _prepare(execution, fetched)
        if inputs is not None:
            with capture.prints(any(body.log_prints for body in execution.bodies)):
                _run_items(execution, inputs, results)
            results = _keep(execution, results)
    finally:
        monitor.remove(execution)
        execution.close()
    return results, execution.table(time.thread_time() - cpu)


def cancel_batches(run_id: str, batch_ids: Sequence[int]) -> int:
    """Cancel batches that run in this process; returns how many there were."""
    return monitor.cancel(run_id, batch_ids)


def load(payload: Payload) -> Any:
    """Return the object in a payload; pickled ones with a digest are unpickled once per process."""
    if payload.data is None:
        return payload.value
    if not payload.digest:
        return codec.load_payload(payload)
    value = _loaded.get(payload.digest, MISSING)  # other threads load and evict meanwhile
    if value is MISSING:
        value = _loaded[payload.digest] = codec.load_payload(payload)
        while len(_loaded) > MAX_LOADED:
            _evict()
    return value


def _load_arguments(stage: Stage) -> Arguments:
    """Return a stage's arguments. Shared ones are unpickled anew: no batch sees what others did to theirs."""
    arguments: Arguments = load(stage.arguments)
    if stage.shared is None:
        return arguments
    live = stage.shared.data is None
    return arguments.with_shared(stage.shared.value if live else codec.load_payload(stage.shared))


def _evict() -> None:
    try:
        del _loaded[next(iter(_loaded))]
    except (KeyError, StopIteration, RuntimeError):  # another thread was quicker
        pass


def _prepare(execution: Execution, fetched: Sequence[Fetched | None]) -> Inputs | None:
    """Load code and inputs. Where that fails, all items end with the same detail and the inputs are None."""
    batch = execution.batch
    outcome = Outcome.FAILED
    try:
        execution.run = load(batch.context)
        for stage in batch.stages:
            try:
                body, arguments = load(stage.body), _load_arguments(stage)
            except BaseException as error:
                if not execution.bodies:
                    raise
                # fails the items of this stage, not those before
                execution.unloadable = detail_of(error, in_process=execution.in_process)
                break
            execution.bodies.append(body)
            execution.arguments.append(arguments)
        outcome = Outcome.INPUT_LOST
        inputs = _collect(execution, fetched)
        capture.install()
        capture.install_named(execution.run.loggers, here=execution.in_process)
        if any(map(is_async, (body.fn for body in execution.bodies))):
            execution.event_loop()
        return inputs
    except BaseException as error:  # user modules are imported here: anything can be raised
        detail = detail_of(error, in_process=execution.in_process)
        for entry in range(0, len(execution.outcomes), execution.n_stages):
            execution.outcomes[entry] = outcome
            execution.details[entry] = detail
        return None


def _collect(execution: Execution, fetched: Sequence[Fetched | None]) -> Inputs:
    """Bring the inputs together, and note all batches and files that are missing: they are to be made again."""
    inputs, missing, gone = Inputs(), execution.missing, list[str]()
    for source, values in zip(execution.batch.inputs, fetched, strict=True):
        if source.stored is not None:
            try:
                picked: Sequence[Any] = read_stored(source.stored, source.positions)
            except ResultFileLostError as error:
                execution.missing_files[source.stored.url] = None
                gone.append(error.reason)
                continue
        else:
            held: Fetched | None = load(source.literal) if source.literal is not None else values
            if held is None:
                assert source.batch_id is not None, "what is not fetched comes from a batch"
                missing[source.batch_id] = None
                gone.append(f"the results of batch {source.batch_id} are gone")
                continue
            picked = (
                held.pick(source.positions) if isinstance(held, Held) else [held[p] for p in source.positions]
            )
        if not inputs.add(source.node_id, source.indices, picked) and source.batch_id is not None:
            missing[source.batch_id] = (
                None  # which of its items need what is missing shows when they are bound
            )
    read = {held for held in fetched if isinstance(held, Held)}
    execution.copied_bytes = sum(held.copied_bytes for held in read)
    if gone:
        raise ResultLostError(gone[0] + (f", and {len(gone) - 1} more" if gone[1:] else ""))
    return inputs


def _run_items(execution: Execution, inputs: Inputs, results: Results) -> None:
    loaded = len(execution.bodies)
    runs: list[StageRun] = []
    for number, values in enumerate(results[:loaded]):
        runs.append(StageRun(execution, number, inputs, values, runs))
    first, *later = runs
    for position in range(len(execution.batch.indices)):
        if position and execution.stops:
            return
        has_result = first.run(position)
        for stage in later:
            if stage.follows:  # it does not begin either when the deadline is over, and says so
                has_result = has_result and stage.run(position)
                continue
            if execution.stops:
                return
            has_result = stage.run(position)
        if execution.unloadable is not None and (has_result or not execution.batch.stages[loaded].follows):
            entry = position * execution.n_stages + loaded
            execution.outcomes[entry] = Outcome.FAILED
            execution.details[entry] = execution.unloadable


class StageRun:
    """Runs the items of one stage of a batch. What is the same for all of them is looked up once."""

    def __init__(
        self, execution: Execution, stage: int, inputs: Inputs, values: list[Any], before: Sequence[StageRun]
    ) -> None:
        batch = execution.batch
        spec = batch.stages[stage]
        self.follows = spec.follows
        self.taken = taken = before[-1].relay if before and spec.follows else None
        self.execution = execution
        self.stage = stage
        self.n_stages = execution.n_stages
        self.indices = batch.indices
        self.values = values
        self.body = body = execution.bodies[stage]
        self.timeout = spec.timeout_seconds
        self.permit = spec.permit
        self.prints = capture.task_print if body.log_prints else None
        self.bind = execution.arguments[stage].binder(inputs, taken)
        self.relay: Relay | None = None  # to the next stage
        self.left: Relay | None = None  # the same, where something has to be done about results
        if stage + 1 < len(execution.bodies) and batch.stages[stage + 1].follows:
            by_index = inputs.of_node(spec.node_id) if execution.arguments[stage + 1].has_refs() else None
            self.relay = Relay(spec.node_id, values, live=execution.in_process, by_index=by_index)
            self.left = None if execution.in_process and by_index is None else self.relay

    def run(self, position: int) -> bool:
        """Run an item and note how it ended. Returns whether it has a result."""
        execution = self.execution
        entry = position * self.n_stages + self.stage
        outcome, value, detail = self._end_of(entry, position)
        taken, left = self.taken, self.left
        if taken is not None and taken.occupied:
            taken.forget(position, self.indices[position])
        has_result = outcome is COMPLETED or outcome is CACHED
        kept = value
        if has_result and left is not None and (left.by_index is not None or type(value) not in IMMUTABLE):
            try:
                kept = left.leave(position, self.indices[position], value)
            except Exception as error:  # it cannot be pickled: as with results that nothing takes at once
                found = next(codec.unpicklable([value]), None)
                outcome, has_result = Outcome.FAILED, False
                detail = detail_of(found[1] if found else error, in_process=execution.in_process)
        if detail is not None:
            execution.details[entry] = detail
        execution.outcomes[entry] = outcome
        if not has_result:
            return False
        self.values[position] = kept
        kind = type(value)
        if kind not in NEVER and (items := len(value) if kind is list else length(value)) is not None:
            execution.lengths[entry] = items
        return True

    def _end_of(self, entry: int, position: int) -> Ended:
        execution = self.execution
        try:
            args, kwargs = self.bind(position)
        except ResultLostError as error:
            return Outcome.INPUT_LOST, None, detail_of(error, in_process=execution.in_process)
        except BaseException as error:  # a template is filled with user objects
            return Outcome.FAILED, None, detail_of(error, in_process=execution.in_process)
        item = ItemContext(execution, entry, args, kwargs)
        if self.permit:
            refusal = _refusal(item)
            if refusal is not None:
                return refusal
        # a context of its own for each item, as for an asyncio task: what it sets is not seen by the next
        ended: Ended | None
        ended, started = execution.window(entry, self.timeout, copy_context().run, self._call, item)
        if ended is not None and self.timeout is None and execution.interrupted is None:
            return ended
        return _judge(execution, ended) if started else UNSTARTED

    def _call(self, item: ItemContext) -> Ended:
        current_item.set(item)
        if self.prints is not None:
            capture.print_sink.set(self.prints)
        return call(item, self.body)


UNSTARTED: Ended = Outcome.UNSTARTED, None, None


def _judge(execution: Execution, ended: Ended | None) -> Ended:
    """Say how an item ended, given what its code did and whether it had been told to stop."""
    entry, timeout, stop = execution.entry, execution.timeout, execution.stop
    execution.stop = None  # its frames hold the item's arguments
    if execution.outcomes[entry]:  # already told as abandoned; what came later does not count
        return Outcome(execution.outcomes[entry]), None, execution.details.get(entry)
    if execution.interrupted is CancelInterrupt:
        if ended is not None and ended[0] is Outcome.COMPLETED:
            return ended  # it was quicker than the request
        message = "cancelled while it ran"
        where = "" if stop is None else traceback_of_stop(stop, TaskCancelledError(message))
        return Outcome.CANCELLED, None, Detail("TaskCancelledError", message, where)
    late = timeout is not None and execution.durations[entry] > timeout
    if execution.interrupted is TimeoutInterrupt or late:
        message = late_message(timeout, execution.durations[entry], stopped=ended is None)
        where = "" if stop is None else traceback_of_stop(stop, TaskTimeoutError(message))
        return Outcome.TIMED_OUT, None, Detail("TaskTimeoutError", message, where)
    if isinstance(stop, GaveWay):
        return (
            Outcome.UNSTARTED,
            None,
            Detail("", "it waited for a task run of its own batch, and runs again"),
        )
    if ended is None:  # user code raised an interrupt of its own making
        error = stop if stop is not None else Interrupt()
        return Outcome.FAILED, None, detail_of(error, in_process=execution.in_process)
    return ended


def _refusal(item: ItemContext) -> Ended | None:
    """Ask for permission to start. Returns how the item ends without it."""
    try:
        reply = item.channel.call(item.batch_id, item.execution.execution_id, item.entry, "permit", b"")
    except Exception:  # nobody answers: without permission it has not started
        return UNSTARTED
    return None if reply == b"yes" else (Outcome.REFUSED, None, None)


def _keep(execution: Execution, results: Results) -> Results:
    """Write results to storage where that is wanted, and see to it that all can leave this process."""
    for stage, body in enumerate(execution.bodies):
        if body.persist:
            _persist(execution, results, stage)
    if execution.in_process:
        return results
    frames = [_pack(execution, results, stage) for stage in range(len(results))]
    arguments = (stage.arguments.nbytes for stage in execution.batch.stages)
    execution.moved_bytes = bytes_of(frames) + sum(arguments) + execution.copied_bytes
    return CheckedResults(results, frames)


def _pack(execution: Execution, results: Results, stage: int) -> Frames:
    values = results[stage]
    while True:
        try:
            return pack_values(values)
        except Exception as error:
            failures: list[tuple[int, Exception]] = list(codec.unpicklable(values))
            if not failures:  # each goes alone but not all together, for want of memory
                failures = [(p, error) for p, value in enumerate(values) if value is not MISSING]
            if not failures:
                raise
        for position, failure in failures:
            _spoil(execution, results, stage, position, failure)


def _persist(execution: Execution, results: Results, stage: int) -> None:
    batch, body, values = execution.batch, execution.bodies[stage], results[stage]
    key = f"runs/{batch.run_id}/{batch.batch_id}-{stage}-{execution.execution_id}"
    while any(value is not MISSING for value in values):
        try:
            storage = open_storage(body.storage_url, body.serializer)
            execution.stored[stage] = storage.write(key, values)
            return
        except ResultSerializationError as error:
            bad = [position for position in error.failures if values[position] is not MISSING]
            failure: Exception = error
        except Exception as error:
            bad, failure = [], error
        for position in bad or [p for p, value in enumerate(values) if value is not MISSING]:
            _spoil(execution, results, stage, position, failure)


def _spoil(execution: Execution, results: Results, stage: int, position: int, error: BaseException) -> None:
    """Turn a completed item into a failed one, because its result cannot be kept. What followed is void."""
    first = position * execution.n_stages
    for later in range(stage, execution.n_stages):
        if later > stage and not execution.batch.stages[later].follows:
            break
        results[later][position] = MISSING
        execution.outcomes[first + later] = Outcome.UNSTARTED
        execution.details.pop(first + later, None)
        execution.lengths.pop(first + later, None)
    execution.outcomes[first + stage] = Outcome.FAILED
    execution.details[first + stage] = detail_of(error, in_process=execution.in_process)
