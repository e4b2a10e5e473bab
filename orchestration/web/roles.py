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
    """

    role: Role | None


ANYBODY = Rule(None)
READ = Rule(Role.READ)
RUN = Rule(Role.RUN)
ADMIN = Rule(Role.ADMIN)

# By path as in the OpenAPI description, and method. Of two that fit the first counts.
RULES: dict[str, dict[str, Rule]] = {
    "/api/health": {"GET": ANYBODY},  # says more to those who may read
    "/api/login": {"POST": ANYBODY},
    "/api/logout": {"POST": ANYBODY},
    "/api/me": {"GET": READ},
    "/api/metrics": {"GET": READ},
    "/api/openapi.json": {"GET": READ},
    "/api/runs": {"GET": READ, "POST": RUN},
    "/api/runs/summary": {"GET": READ},
    "/api/runs/{run}": {"GET": READ},
    "/api/runs/{run}/nodes": {"GET": READ},
    "/api/runs/{run}/task-runs": {"GET": READ},
    "/api/runs/{run}/nodes/{node}/items/{index}": {"GET": READ},
    "/api/runs/{run}/nodes/{node}/states": {"GET": READ},
    "/api/runs/{run}/timeline": {"GET": READ},
    "/api/runs/{run}/logs": {"GET": READ},
    "/api/runs/{run}/errors": {"GET": READ},
    "/api/runs/{run}/timing": {"GET": READ},
    "/api/runs/{run}/stream": {"GET": READ},
    "/api/runs/{run}/cancel": {"POST": RUN},
    "/api/runs/{run}/pause": {"POST": RUN},
    "/api/runs/{run}/unpause": {"POST": RUN},
    "/api/runs/{run}/resume": {"POST": RUN},
    "/api/runs/{run}/retry": {"POST": RUN},
    "/api/stream": {"GET": READ},
    "/api/limits": {"GET": READ},
    "/api/limits/{name}": {"PUT": ADMIN, "DELETE": ADMIN},
    "/api/flows": {"GET": READ},
    "/api/flows/{flow}/form": {"GET": RUN},  # imports the flow's file, in a process of its own
    "/api/workers": {"GET": READ},
    "/api/store": {"GET": READ},
    "/api/store/read": {"POST": READ},
    "/api/store/note": {"POST": RUN},
    "/api/store/write": {"POST": RUN},  # limits need more, which it looks for itself
    "/api/store/news": {"GET": READ},
}

_COMPILED = [(compile_path(path)[0], rules) for path, rules in RULES.items()]


def rules_of(path: str) -> dict[str, Rule] | None:
    """Return the rules of a path by method; None: there is no such path."""
    return next((rules for pattern, rules in _COMPILED if pattern.match(path)), None)
