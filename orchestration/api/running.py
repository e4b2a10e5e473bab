"""The parts of one flow run: its record, its driver, its session, and their orderly beginning and end."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runners import capture
from runners.base import TaskRunner
from runners.body import called_name
from runners.codec import dumps
from runners.context import RunContext, current_item
from runners.messages import Detail
from runners.storage import ResultStorage

from .. import settings
from ..core.coordinator import Coordinator
from ..core.journal import LogWritten, RunMoved
from ..core.states import RunState, State
from ..driver.clock import SteadyClock
from ..driver.housekeeping import Housekeeping
from ..driver.loop import Driver, Write
from ..driver.packing import Packer
from ..errors import UserError
from ..stores import open_store
from ..stores.base import RecoveredNode, RunRow, Store
from . import lessons
from .annotations import current_tags
from .entrypoints import entrypoint_of
from .flows import Flow
from .gateway import Gateway
from .hooks import TaskHooks
from .parameters import jsonable
from .remote import RemoteSession
from .run_names import random_name
from .runtime import current_run
from .secrets import without_secrets
from .sessions import LocalSession, active_session

log = logging.getLogger("millrace")


@dataclass(frozen=True, slots=True)
class FlowDefaults:
    """What a flow gives its tasks where they do not say themselves."""

    persist_results: bool
    result_storage: str
    result_serializer: str
    log_prints: bool


class RunningFlow:
    """One flow run while this process runs it."""

    def __init__(
        self,
        flow: Flow[Any, Any],
        row: RunRow,
        parameters: Mapping[str, Any],
        *,
        store: Store,
        runner: TaskRunner,
        recovered: Mapping[str, RecoveredNode],
        first_ids: tuple[int, int] = (0, 0),
    ) -> None:
        self.flow = flow
        self.row = row
        self.store = store
        self.runner = runner
        self.clock = SteadyClock()
        context = self.context = RunContext(
            row.run_id,
            row.name,
            flow.name,
            dict(parameters),
            row.tags,
            self.clock.now(),
            row.parent_run_id,
            capture.with_levels(settings.log_loggers()),
        )
        core = Coordinator(
            row.run_id,
            random.random,
            prefetch=runner.capabilities.prefetch,
            first_batch_id=first_ids[1],
            lessons=lessons.recall(flow.fn, runner.name),
            ends_workers=runner.capabilities.ends_workers,
        )
        self.driver = Driver(row.run_id, row.epoch, core, runner, store, self.clock)
        in_process = runner.capabilities.in_process
        keeps = not in_process or bool(recovered)
        self.driver.packer = Packer(context, core.nodes, in_process=in_process, keeps=keeps)
        self.session = LocalSession(
            row.run_id, self.driver, _defaults(flow), recovered=recovered, first_node_id=first_ids[0]
        )
        self.gateway = Gateway(self.session)
        self.hooks = TaskHooks(self.session)
        self.housekeeping = Housekeeping(self.driver, store, row.epoch)
        self.started = False
        self.engine_url = ""
        self.driver.on_call = self.gateway.take
        self.driver.inline = self.session.inline.deliver
        self.driver.runs_here = lambda node_id: not self.session.inline.is_remote(node_id)
        self.driver.answer = self.session.answer
        self.driver.observers.append(self.hooks.observe)

    def start(self) -> None:
        """Start heartbeat, runner and driver."""
        self.started = True
        self.housekeeping.start()  # first: a cluster may need minutes to start, and a run that is silent is reaped
        self.driver.start()
        self.engine_url = self.runner.dashboard_url()

    def move(
        self, state: RunState, *, name: str = "", message: str = "", detail: Detail | None = None
    ) -> None:
        """Record a state of the flow run, and wait until it is safe."""
        self.row = replace(self.row, state=state, state_name=name, message=message)
        used = self.driver.cpu_seconds
        moved = RunMoved(state, self.clock.now(), name, message, detail, used, self.engine_url)
        if self.started:
            self.driver.write(moved)
        else:
            self.store.append(self.row.run_id, self.row.epoch, [moved])

    def log(self, line: LogWritten) -> None:
        """Record log lines of the flow function, with the driver's next turn."""
        self.driver.post(Write((line,)))

    def recoverable(self) -> dict[str, RecoveredNode]:
        """Return what a retry of the flow function need not run again: results that are in storage."""
        found = {}
        for node in self.driver.core.nodes.values():
            spec = node.spec
            done = {
                i: place
                for i in range(node.width)
                if node.states[i] == State.COMPLETED and (place := node.stored.get(i)) is not None
            }
            states, tries = node.states, node.attempts  # what was skipped with its upstream has none
            skipped = frozenset(i for i in range(node.width) if states[i] == State.SKIPPED and tries[i])
            found[spec.path] = RecoveredNode(
                spec.path, spec.fingerprint, node.width, {}, done, skipped=skipped
            )
        return found

    def counts(self) -> list[int]:
        """Return the numbers of task runs by State value."""
        nodes = list(self.driver.core.nodes.values())
        return [sum(column) for column in zip(*(n.counts for n in nodes), strict=True)] if nodes else [0] * 13

    def close(self) -> None:
        """End threads and runner; whatever state things are in, nothing of the run stays behind."""
        for step in (
            self.session.close,
            self.housekeeping.close,
            self.driver.stop,
            self._remember,
            self.hooks.close,  # hooks may ask for results
            self.driver.close,
            self.gateway.close,
        ):
            try:
                step()
            except Exception:
                log.exception("closing run %s", self.row.name)

    def _remember(self) -> None:
        lessons.remember(self.flow.fn, self.runner.name, self.driver.core.lessons())


def new_run(
    flow: Flow[Any, Any],
    parameters: Mapping[str, Any],
    *,
    parent: RunRow | None,
    recovered: Mapping[str, RecoveredNode] | None = None,
) -> RunningFlow:
    """Record a new run of a flow and return it, not started yet."""
    store = open_store(flow.store or _inherited_store())
    runner = make_runner(flow)
    item = current_item.get()
    above = item.run.run_id if item is not None else parent.run_id if parent is not None else None
    pickled = _pickled(parameters)
    if pickled is None and not runner.capabilities.in_process:
        _tell_missing(flow, parameters)
    run_id, tags = uuid.uuid4().hex, current_tags.get()
    unnamed = RunContext(run_id, "", flow.name, dict(parameters), tags, time.time(), above)
    row = RunRow(
        run_id=run_id,
        name=run_name(flow, unnamed),
        flow_name=flow.name,
        created=time.time(),
        heartbeat=store.now(),  # it lives from the start: nobody may claim it before its first own beat
        runner=runner.name,
        entrypoint=entrypoint_of(flow),
        version=flow.version,
        tags=tags,
        parameters=jsonable(parameters),
        parameters_pickle=pickled,
        parent_run_id=above,
        parent_task_run_id=item.task_run_id if item is not None else None,
        host=socket.gethostname(),
        pid=os.getpid(),
    )
    store.create_run(row)
    return RunningFlow(flow, row, parameters, store=store, runner=runner, recovered=recovered or {})


def _inherited_store() -> str | None:
    """Return the store of the run whose task run calls a flow on a worker."""
    session = active_session()
    return session.store_url(socket.gethostname()) if isinstance(session, RemoteSession) else None


def make_runner(flow: Flow[Any, Any]) -> TaskRunner:
    """Return an unstarted runner for a run of a flow."""
    chosen = flow.task_runner
    if chosen is None:
        chosen = settings.runner_name() or "threads"
    if isinstance(chosen, str):
        chosen = runner_by_name(chosen)
    if isinstance(chosen, type) and issubclass(chosen, TaskRunner):
        return chosen()
    if not isinstance(chosen, TaskRunner):
        raise UserError(
            f"task_runner of flow {flow.name!r} is {chosen!r}, which is no task runner. Give an instance or a class "
            f"of one, or its name: {', '.join(RUNNERS)}."
        )
    return chosen.duplicate()


RUNNERS = {
    "sequential": "SequentialTaskRunner",
    "threads": "ThreadPoolTaskRunner",
    "dask": "DaskTaskRunner",
    "ray": "RayTaskRunner",
}


def runner_by_name(name: str) -> type[TaskRunner]:
    """Return a runner class for "dask", or for "package.module:Class"."""
    import runners

    if name in RUNNERS:
        found: type[TaskRunner] = getattr(runners, RUNNERS[name])
        return found
    if ":" in name:
        return _runner_class(name)
    raise UserError(
        f"there is no task runner {name!r}. Known: {', '.join(RUNNERS)}, or MODULE:CLASS for your own."
    )


def _runner_class(name: str) -> type[TaskRunner]:
    import importlib

    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"task runner {name!r} cannot be loaded: {error}. Before the colon stands a module that can be imported "
            "here (look at PYTHONPATH), after it a class in it."
        ) from error
    if not (isinstance(found, type) and issubclass(found, TaskRunner)):
        raise UserError(f"{name!r} is {found!r}, which is no task runner class (see runners.base.TaskRunner)")
    return found


def run_name(flow: Flow[Any, Any], context: RunContext) -> str:
    """Return the run's name: the flow's template filled in, or two words. `context` lacks it still."""
    if flow.flow_run_name is None:
        return random_name()
    if isinstance(flow.flow_run_name, str):
        try:
            return flow.flow_run_name.format(**context.parameters)
        except (KeyError, IndexError) as error:
            known = ", ".join(context.parameters) or "none"
            raise UserError(
                f"flow_run_name {flow.flow_run_name!r} names {error}, which is no parameter (there are: {known})"
            ) from None
    run, item = current_run.set(context), current_item.set(None)  # it may ask `runtime.flow_run`
    try:
        return called_name(flow.flow_run_name, context.parameters)
    finally:
        current_item.reset(item)
        current_run.reset(run)


def _defaults(flow: Flow[Any, Any]) -> FlowDefaults:
    url = flow.result_storage or settings.result_storage_url()
    return FlowDefaults(
        persist_results=flow.persist_results,
        result_storage=ResultStorage(url).url,  # absolute: workers have other current folders
        result_serializer=flow.result_serializer or "cloudpickle",
        log_prints=flow.log_prints,
    )


def _tell_missing(flow: Flow[Any, Any], parameters: Mapping[str, Any]) -> None:
    names = [repr(name) for name, value in parameters.items() if _pickled({name: value}) is None]
    log.warning(
        "parameter %s of flow %r cannot be pickled: on workers runtime.flow_run.parameters lacks it, and this run "
        "cannot be resumed by another process",
        " and ".join(names),
        flow.name,
    )


def _pickled(parameters: Mapping[str, Any]) -> bytes | None:
    """Return the parameters for a later resume, secrets left out; None if they cannot be pickled."""
    with contextlib.suppress(Exception):
        return dumps(without_secrets(parameters))
    return None
