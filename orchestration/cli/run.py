"""`millrace run`."""

from __future__ import annotations

import inspect
import json
import os
from typing import TYPE_CHECKING, Any

import click

from ..errors import ParameterError, UserError
from .common import load, store_option
from .runner_options import make_runner, runner_options

if TYPE_CHECKING:
    from ..api.flows import Flow


@click.command()
@click.argument("entrypoint", metavar="FILE.py:FLOW")
@click.option(
    "-p", "--param", "pairs", multiple=True, metavar="NAME=VALUE", help="A parameter; JSON or text."
)
@click.option(
    "--params-json",
    metavar="JSON|@FILE",
    help="Parameters as one JSON object, or a file with it (@-: standard input).",
)
@runner_options
@store_option
@click.option("--name", help="The run's name, instead of two random words.")
@click.option("--tag", "tag", multiple=True, help="A tag of the run and its task runs; may be repeated.")
@click.option("--persist", is_flag=True, help="Keep results in storage, so that the run can be resumed.")
@click.option("--quiet", is_flag=True, help="Show errors only.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the run and its result as JSON when it has ended."
)
def run(
    entrypoint: str, pairs: tuple[str, ...], params_json: str | None, as_json: bool, **options: Any
) -> int:
    """Run a flow: `millrace run flows.py:refresh -p day=2026-02-01 --runner dask`.

    FILE.py:FLOW may also be MODULE:FLOW. Progress and log lines go to stderr, so that stdout is free for what
    the flow prints. Ctrl-C cancels the run; a second one stops it at once.

    JSON keys: those of `millrace runs show`, and result (its repr, if it is no JSON value).
    """
    set_up(quiet=options["quiet"], store=options["store"])
    flow = load(entrypoint)
    parameters = read_parameters(flow, pairs, params_json)
    flow = _with_options(flow, **options)
    from ..api.annotations import tags

    ran = Ran(flow)
    with tags(*options["tag"]):
        state = start(ran.flow, parameters)
    return finish(ran, state, as_json=as_json)


class Ran:
    """A flow that tells by which run it was run."""

    def __init__(self, flow: Flow[Any, Any]) -> None:
        self.run_id = ""
        self.flow = flow.with_options(on_running=[*flow.on_running, self._note])

    def _note(self, _flow: Any, run: Any, _state: Any) -> None:
        self.run_id = run.run_id


def start(flow: Flow[Any, Any], parameters: dict[str, Any]) -> Any:
    """Run a flow to its end and return its state; an async flow gets a loop."""
    from ..api.engine import run_flow

    return completed(run_flow(flow, flow.bound, parameters, return_state=True))


def completed(state: Any) -> Any:
    """Return a state; what an async flow gives is awaited in a loop of its own."""
    if inspect.isawaitable(state):
        import asyncio

        async def wait() -> Any:
            return await state

        return asyncio.run(wait())
    return state


def finish(ran: Ran, state: Any, *, as_json: bool) -> int:
    """Show how a run ended: the flow's own exception once, or JSON. Returns the exit code."""
    from .exits import of_state
    from .output import print_json, print_traceback

    error: BaseException | None = None
    result = None
    try:
        result = state.result()
    except BaseException as raised:
        error = raised
    if error is not None and state.type in ("Failed", "Crashed"):
        print_traceback(error)
    if as_json:
        print_json(_described(ran, state, result))
    return of_state(state.type)


def _described(ran: Ran, state: Any, result: Any) -> dict[str, Any]:
    from ..api.parameters import jsonable
    from ..stores import open_store
    from ..stores.as_json import run_json

    found: dict[str, Any] = {"state": state.type, "state_name": state.name, "message": state.message}
    if ran.run_id:
        found = run_json(open_store(ran.flow.store).run(ran.run_id))
    return {**found, "result": jsonable({"result": result})["result"]}


def set_up(*, quiet: bool, store: str | None) -> None:
    """Make subflows and workers follow the options; end by SIGTERM as by Ctrl-C."""
    import signal

    if quiet:
        os.environ["MILLRACE_DISPLAY"] = "off"
    if store:
        os.environ["MILLRACE_STORE"] = store
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _with_options(flow: Flow[Any, Any], **options: Any) -> Flow[Any, Any]:
    changed: dict[str, Any] = {}
    runner = make_runner(options["runner"], options["address"], options["workers"])
    if runner is not None:
        changed["task_runner"] = runner
    if options["store"]:
        changed["store"] = options["store"]
    if options["name"]:
        name = options["name"]
        changed["flow_run_name"] = lambda: name  # as it is: braces are no template here
    if options["persist"]:
        changed["persist_results"] = True
    return flow.with_options(**changed) if changed else flow


def read_parameters(flow: Flow[Any, Any], pairs: tuple[str, ...], params_json: str | None) -> dict[str, Any]:
    """Return the parameters of the command line.

    Raises:
        ParameterError: one is unknown, given twice, or cannot be read; names those that exist.
    """
    given = _from_json(params_json) if params_json else {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ParameterError(f"-p {pair!r}: write NAME=VALUE.")
        given[name] = _value(text)
    signature = inspect.signature(flow.fn)
    known = [
        name for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    known = known[len(flow.bound) :]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    unknown = [name for name in given if name not in known]
    if unknown and not takes_any:
        there = f"It has: {', '.join(known)}." if known else "It has none."
        raise ParameterError(f"flow {flow.name!r} has no parameter {unknown[0]!r}. {there}")
    return given


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _from_json(text: str) -> dict[str, Any]:
    where = "--params-json"
    if text.startswith("@"):
        name = text[1:]
        where = "standard input" if name == "-" else name
        try:
            with click.open_file(name, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            raise UserError(f"--params-json {text}: {error.strerror or error}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ParameterError(f"{where} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ParameterError(f"{where} must be a JSON object with a key for each parameter.")
    return value
