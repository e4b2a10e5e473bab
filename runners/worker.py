"""The far side: runs the items of a batch one after another, on whatever worker the engine chose.

`run_batch` never raises because of user code. It returns the results, which stay on the engine, and the table,
which travels back. Whatever an item does (raise, exit, hang past its timeout, return what cannot be moved) is
that item's outcome; the others of its batch are not touched.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from . import capture, codec
from .arguments import Arguments, Inputs
from .body import TaskBody
from .calling import Ended, call, detail_of
from .channel import Channel
from .context import ItemContext, RunContext, current_item
from .errors import RunnersError, SerializationError
from .execution import CancelInterrupt, Execution, Interrupt, TimeoutInterrupt
from .messages import Batch, Detail, Input, Outcome, Payload, Table
from .monitor import monitor
from .storage import MISSING, open_storage, read_stored

MAX_LOADED = 256  # unpickled bodies kept per worker process

Results = list[list[Any]]  # by stage, by position; MISSING where an item has no result

_loaded: OrderedDict[str, Any] = OrderedDict()


def run_batch(
    batch: Batch, fetched: Sequence[Sequence[Any] | None], channel: Channel, *, in_process: bool
) -> tuple[Results, Table]:
    """Run a batch and return its results and its table.

    Args:
        fetched: for each of `batch.inputs` with a batch_id the results of its stage, else None.
        in_process: whether results stay live objects; otherwise each must be picklable.
    """
    cpu = time.thread_time()
    execution, inputs = _prepare(batch, fetched, channel, in_process=in_process)
    results: Results = [[MISSING] * len(batch.indices) for _ in batch.stages]
    monitor.add(execution)
    try:
        channel.emit(execution.started_event())
        if inputs is not None:
            _run_items(execution, inputs, results)
        for stage in range(execution.n_stages):
            _persist(execution, stage, results[stage])
    finally:
        monitor.remove(execution)
        execution.close()
    return results, execution.table(time.thread_time() - cpu)


def cancel_batches(run_id: str, batch_ids: Sequence[int]) -> int:
    """Cancel batches that run in this process; returns how many there were."""
    return monitor.cancel(run_id, set(batch_ids))


def load(payload: Payload) -> Any:
    """Return the object in a payload; pickled ones with a digest are unpickled once per process."""
    if payload.data is None:
        return payload.value
    if not payload.digest:
        return codec.loads(payload.data)
    if payload.digest not in _loaded:
        _loaded[payload.digest] = codec.loads(payload.data)
        while len(_loaded) > MAX_LOADED:
            _loaded.popitem(last=False)
    return _loaded[payload.digest]


def _prepare(
    batch: Batch, fetched: Sequence[Sequence[Any] | None], channel: Channel, *, in_process: bool
) -> tuple[Execution, Inputs | None]:
    """Load code and inputs. Where that fails, all items end with the same detail and inputs are None."""
    run = RunContext(batch.run_id, "", "")
    failure: tuple[Outcome, BaseException]
    bodies: list[TaskBody] = []
    arguments: list[Arguments] = []
    try:
        run = load(batch.context)
        bodies = [load(stage.body) for stage in batch.stages]
        arguments = [load(stage.arguments) for stage in batch.stages]
        _install(bodies)
        execution = Execution(batch, run, bodies, arguments, channel, in_process=in_process)
        try:
            return execution, _collect(batch.inputs, fetched)
        except Exception as lost:
            failure = Outcome.INPUT_LOST, lost
    except Exception as broken:  # user modules are imported here: anything can be raised
        failure = Outcome.FAILED, broken
    execution = Execution(batch, run, bodies, arguments, channel, in_process=in_process)
    outcome, error = failure
    detail = detail_of(error, in_process=in_process)
    for entry in range(len(execution.outcomes)):
        execution.outcomes[entry] = outcome
        execution.details[entry] = detail
    return execution, None


def _install(bodies: Sequence[TaskBody]) -> None:
    capture.install()
    if any(body.log_prints for body in bodies):
        capture.install_print()


def _collect(wanted: Sequence[Input], fetched: Sequence[Sequence[Any] | None]) -> Inputs:
    inputs = Inputs()
    for source, values in zip(wanted, fetched, strict=True):
        if source.stored is not None:
            picked: Sequence[Any] = read_stored(source.stored, source.positions)
        else:
            held = load(source.literal) if source.literal is not None else values
            assert held is not None, "an input has a batch, a file or a literal"
            picked = [held[p] for p in source.positions]
        inputs.add(source.node_id, source.indices, picked)
    return inputs


def _run_items(execution: Execution, inputs: Inputs, results: Results) -> None:
    batch, stages = execution.batch, execution.n_stages
    clock, deadline = execution.clock, batch.deadline_seconds
    own = {stage.node_id: s for s, stage in enumerate(batch.stages[:-1])}
    for position in range(len(batch.indices)):
        if execution.cancelled or (deadline is not None and position and clock() - execution.zero > deadline):
            return
        for stage in range(stages):
            entry = position * stages + stage
            ended = _run_item(execution, entry, position, stage, inputs)
            execution.outcomes[entry] = ended.outcome
            if ended.detail is not None:
                execution.details[entry] = ended.detail
            if ended.outcome not in (Outcome.COMPLETED, Outcome.CACHED):
                break
            results[stage][position] = value = ended.value
            if type(value) is list or type(value) is tuple:
                execution.lengths[entry] = len(value)
            if stage in own.values():
                inputs.add(batch.stages[stage].node_id, (batch.indices[position],), (value,))


def _run_item(
    execution: Execution,
    entry: int,
    position: int,
    stage: int,
    inputs: Inputs,
) -> Ended:
    body, spec = execution.bodies[stage], execution.batch.stages[stage]
    try:
        args, kwargs = execution.arguments[stage].bind(position, inputs)
        item = ItemContext(execution, entry, args, kwargs)
        name = body.render_name(args, kwargs)
        if name is not None:
            execution.names[entry] = name
        if spec.permit and not _permitted(item):
            return Ended(Outcome.REFUSED)
    except Exception as error:
        return Ended(Outcome.FAILED, detail=detail_of(error, in_process=execution.in_process))
    token = current_item.set(item)
    prints = capture.print_sink.set(capture.task_print) if body.log_prints else None
    ended: Ended | None = None
    execution.begin(entry, spec.timeout_seconds)
    try:
        try:
            ended = call(item)
        finally:
            seconds = execution.end()
    except Interrupt:  # between the end of user code and the end of its window
        pass
    finally:
        current_item.reset(token)
        if prints is not None:
            capture.print_sink.reset(prints)
    return _judge(execution, ended, seconds, spec.timeout_seconds)


def _judge(execution: Execution, ended: Ended | None, seconds: float, timeout: float | None) -> Ended:
    """Say how an item ended, given what its code did and whether it had been told to stop."""
    if execution.outcomes[execution.entry]:  # already told as abandoned; what came later does not count
        entry = execution.entry
        return Ended(Outcome(execution.outcomes[entry]), detail=execution.details.get(entry))
    if execution.interrupted is CancelInterrupt:
        if ended is not None and ended.outcome is Outcome.COMPLETED:
            return ended  # it was quicker than the request
        return Ended(Outcome.CANCELLED, detail=Detail("TaskCancelledError", "cancelled while it ran"))
    late = timeout is not None and seconds > timeout
    if execution.interrupted is TimeoutInterrupt or late:
        message = f"ran longer than its timeout of {timeout:g} s"
        return Ended(Outcome.TIMED_OUT, detail=Detail("TaskTimeoutError", message))
    assert ended is not None, "user code ended without an outcome and without an interrupt"
    return ended


def _permitted(item: ItemContext) -> bool:
    reply = item.channel.call(item.batch_id, item.execution.execution_id, item.entry, "permit", b"")
    return reply == b"yes"


def _persist(execution: Execution, stage: int, values: list[Any]) -> None:
    """Write a stage's results to storage, and check that results can leave this process at all."""
    body = execution.bodies[stage] if execution.bodies else None
    if body is not None and body.persist:
        storage = open_storage(body.storage_url, body.serializer)
        key = f"runs/{execution.batch.run_id}/{execution.batch.batch_id}-{stage}-{execution.execution_id}"
        while any(value is not MISSING for value in values):
            try:
                execution.stored[stage] = storage.write(key, values)
                break
            except SerializationError as error:
                _spoil(execution, stage, values, getattr(error, "position", 0), error)
            except RunnersError as error:
                for position, value in enumerate(values):
                    if value is not MISSING:
                        _spoil(execution, stage, values, position, error)
    if not execution.in_process:
        for position, reason in codec.unpicklable(values):
            _spoil(execution, stage, values, position, reason)


def _spoil(execution: Execution, stage: int, values: list[Any], position: int, error: BaseException) -> None:
    """Turn a completed item into a failed one, because its result cannot be kept."""
    entry = position * execution.n_stages + stage
    values[position] = MISSING
    execution.outcomes[entry] = Outcome.FAILED
    execution.details[entry] = detail_of(error, in_process=execution.in_process)
