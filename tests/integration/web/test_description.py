"""The API answers as its OpenAPI description says, whatever it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from orchestration.core.journal import RunMoved
from orchestration.core.states import RunState
from orchestration.errors import UserError
from orchestration.stores.memory import MemoryStore
from orchestration.stores.sqlite import SqliteStore
from orchestration.stores.tokens import Role, mint
from orchestration.testing.store_entries import NOW, ended, new_run
from orchestration.web import gate
from orchestration.web.app import make_app
from orchestration.web.description import MEDIA
from orchestration.web.options import Options

DESCRIBED = make_app(MemoryStore(), Options()).openapi()["paths"]
OPERATIONS = [
    (path, method.upper())
    for path, methods in DESCRIBED.items()
    for method in methods
    if MEDIA.get(path) != "text/event-stream"  # they do not end
]


# That something fits does not mean that there is such a run, flow, state or page: this is told with 404 or 422.
positive_data_acceptance = checks.positive_data_acceptance


class NoLauncher:
    """Starts nothing: what flows are asked for is made up."""

    def start(self, arguments: list[str], expect: str | None = None) -> str:
        raise UserError(f"{arguments} cannot be started")

    def run_flow(self, entrypoint: str, parameters: dict[str, Any]) -> str:
        raise UserError(f"{entrypoint} names no file")

    def schema(self, entrypoint: str) -> dict[str, Any]:
        raise UserError(f"{entrypoint} names no file")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a server that wants a token, over a store with runs whose ids are short."""
    store = SqliteStore(tmp_path_factory.mktemp("described") / "millrace.db")
    store.append(new_run(store, "0"), 1, [ended(0, range(10)), RunMoved(RunState.COMPLETED, NOW + 1)])
    new_run(store, "1")
    store.set_limit("0", 1)
    row, token = mint("fuzz", Role.ADMIN, time.time())
    store.add_token(row)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gate, "ACTIONS_AT_ONCE", 1e9)
        patched.setattr(gate, "FAILURES_AT_ONCE", 1e9)
        app = make_app(store, Options(require_token=True))
        app.state.launcher = NoLauncher()
        headers = {"Authorization": f"Bearer {token}", "Host": "localhost"}
        schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=headers)
        yield schema, headers
    store.close()


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_it_answers_as_described(api: Any, path: str, method: str, mode: GenerationMode) -> None:
    """No 500; no status, media type or form but those described, also to what does not fit; nobody without a token."""
    schema, headers = api

    @settings(max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def answers(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    with suppress(Unsatisfiable):  # of some operations nothing can be asked wrongly
        answers()
