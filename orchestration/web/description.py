"""The OpenAPI description: what FastAPI finds by itself, and what answers look like that are not made by models."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from .roles import RULES

_STREAM, _BYTES, _MSGPACK = "text/event-stream", "application/octet-stream", "application/msgpack"
# Of answers that are no JSON.
MEDIA = {
    "/api/metrics": "text/plain",
    "/api/stream": _STREAM,
    "/api/runs/{run}/stream": _STREAM,
    "/api/runs/{run}/timeline": _BYTES,
    "/api/runs/{run}/nodes/{node}/states": _BYTES,
    "/api/store": _MSGPACK,
    "/api/store/read": _MSGPACK,
    "/api/store/note": _MSGPACK,
    "/api/store/write": _MSGPACK,
    "/api/store/news": _STREAM,
}
_OWN_MODELS = ("HTTPValidationError", "ValidationError")  # FastAPI's, of answers that are never given

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string", "description": "What kind of error, for programs."},
                "message": {"type": "string", "description": "The cause and the cure, for people."},
            },
        }
    },
}
HEALTH = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"enum": ["ok", "store"]},
        "version": {"type": "string"},
        "store": {"type": "string"},
        "message": {"type": "string"},
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of an application's API, with roles, answers and errors as they are."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    parts = found.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in _OWN_MODELS:
        schemas.pop(name, None)
    schemas["Error"] = ERROR
    schemas["Health"] = HEALTH
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            _tell(path, method.upper(), operation)
    return found


def _tell(path: str, method: str, operation: dict[str, Any]) -> None:
    rule = RULES[path][method]
    if rule.role is not None:
        operation["security"] = [{"token": []}]
        operation["description"] = f"{operation['description']}\n\nNeeds the role {rule.role.word}."
    answers = operation["responses"]
    answers.pop("422", None)
    if path in MEDIA:
        for answer in answers.values():
            answer["content"] = {MEDIA[path]: {}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    answers["4XX"] = {"description": "What is wrong with the request, and the cure", "content": error}
    answers["5XX"] = {"description": "What is wrong with the server or its store", "content": error}
    if path == "/api/health":
        health = {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}}
        answers["200"]["content"] = health
        answers["503"] = {"description": "The store cannot be reached", "content": health}
