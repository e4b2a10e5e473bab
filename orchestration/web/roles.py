"""What each route of the API needs of its caller, in one table. A path that is not in it is not answered."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.routing import compile_path

from ..stores.tokens import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route needs.

    Attributes:
        role: None: nothing, not even a token.
        action: what the audit trail calls it; "" of what only tells.
    """

    role: Role | None
    action: str = ""


ANYBODY = Rule(None)
LOGIN = Rule(None, "login")
READ = Rule(Role.READ)
RUN = Rule(Role.RUN)

# By path as in the OpenAPI description, and method. Of two that fit the first counts.
RULES: dict[str, dict[str, Rule]] = {
    "/api/health": {"GET": ANYBODY},  # says more to those who may read
    "/api/login": {"POST": LOGIN},
    "/api/logout": {"POST": Rule(None, "logout")},
    "/api/me": {"GET": READ},
    "/api/metrics": {"GET": READ},
    "/api/openapi.json": {"GET": READ},
    "/api/runs": {"GET": READ, "POST": Rule(Role.RUN, "run.start")},
    "/api/runs/summary": {"GET": READ},
    "/api/runs/{run}": {"GET": READ},
    "/api/runs/{run}/nodes": {"GET": READ},
    "/api/runs/{run}/task-runs": {"GET": READ},
    "/api/runs/{run}/nodes/{node}/items/{index}": {"GET": READ},
    # what a flow works with, not how it went
    "/api/runs/{run}/nodes/{node}/items/{index}/result": {"GET": RUN},
    "/api/runs/{run}/nodes/{node}/states": {"GET": READ},
    "/api/runs/{run}/timeline": {"GET": READ},
    "/api/runs/{run}/logs": {"GET": READ},
    "/api/runs/{run}/errors": {"GET": READ},
    "/api/runs/{run}/timing": {"GET": READ},
    "/api/runs/{run}/stream": {"GET": READ},
    "/api/runs/{run}/cancel": {"POST": Rule(Role.RUN, "run.cancel")},
    "/api/runs/{run}/pause": {"POST": Rule(Role.RUN, "run.pause")},
    "/api/runs/{run}/unpause": {"POST": Rule(Role.RUN, "run.unpause")},
    "/api/runs/{run}/resume": {"POST": Rule(Role.RUN, "run.resume")},
    "/api/runs/{run}/retry": {"POST": Rule(Role.RUN, "run.retry")},
    "/api/stream": {"GET": READ},
    "/api/limits": {"GET": READ},
    "/api/limits/{name}": {
        "PUT": Rule(Role.ADMIN, "limit.set"),
        "DELETE": Rule(Role.ADMIN, "limit.remove"),
    },
    "/api/flows": {"GET": READ},
    # imports the flow's file, in a process of its own
    "/api/flows/{flow}/form": {"GET": Rule(Role.RUN, "flow.inspect")},
    "/api/workers": {"GET": READ},
    "/api/store": {"GET": READ},
    "/api/store/read": {"POST": READ},
    "/api/store/note": {"POST": RUN},
    "/api/store/write": {"POST": RUN},  # limits need more, which it looks for itself
    "/api/store/news": {"GET": READ},
    "/api/audit": {"GET": Rule(Role.ADMIN)},
}

_COMPILED = [(compile_path(path)[0], rules) for path, rules in RULES.items()]


def rules_of(path: str) -> tuple[dict[str, Rule], str]:
    """Return the rules of a path by method, of one that is not there none; and what the path is about."""
    for pattern, rules in _COMPILED:
        found = pattern.match(path)
        if found is not None:
            return rules, " ".join(found.groups())
    return {}, ""
