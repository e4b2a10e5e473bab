"""Errors of a store behind a server, in words that name the server, the cause and the cure."""

from __future__ import annotations

import json

from ... import errors
from ...errors import (
    FencedError,
    StoreError,
    StoreNewerError,
    StoreRefusedError,
    StoreUnreachableError,
    UserError,
)
from ..wire.port import VERSION


class AwayError(Exception):
    """The server did not answer, or a gateway in front of it says so. It may have heard."""


_GATEWAY = (502, 504)


def unreachable(error: Exception, shown: str, waited_seconds: float = 0.0) -> StoreUnreachableError:
    waited = f" It was waited for {waited_seconds:.0f} s." if waited_seconds else ""
    return StoreUnreachableError(
        f"The store {shown} cannot be reached: {error}.{waited} See that `millrace server start` runs there and that "
        f"this machine may connect (`curl {shown}/api/health` tries the same); a run that has stopped goes on "
        f"with `millrace runs resume`. What was recorded before is safe."
    )


def other_version(shown: str, theirs: object) -> StoreNewerError:
    older = (
        "Upgrade the server" if isinstance(theirs, int) and theirs < VERSION else "Upgrade this installation"
    )
    return StoreNewerError(
        f"The server {shown} speaks version {theirs} of the store's protocol, this program version {VERSION}. "
        f"{older} (`pip install --upgrade millrace`), so that both are of the same version."
    )


def no_server(shown: str) -> StoreNewerError:
    return StoreNewerError(
        f"What answers at {shown} is no Millrace server that others can write to. See that the URL is right, and "
        f"upgrade the server (`pip install --upgrade 'millrace[server]'`) if it is an older one."
    )


def explain(status: int, data: bytes, shown: str) -> Exception:
    """Return the error that an answer stands for."""
    kind, message = _told(data)
    if status == 401:
        return StoreRefusedError(
            f"The server {shown} does not know who asks ({message or 'no token fits'}). Set MILLRACE_API_TOKEN to a "
            f"token of role `run`, which `millrace token create` makes on the server's machine."
        )
    if status == 403:
        return StoreRefusedError(f"The server {shown} does not permit this: {message or 'no reason given'}")
    if status in _GATEWAY or (status == 503 and not kind) or kind == StoreUnreachableError.__name__:
        return AwayError(message or f"a gateway answers with {status}")
    if status == 404 and not kind:
        return no_server(shown)
    named = getattr(errors, kind, None)
    if isinstance(named, type) and issubclass(named, StoreError | FencedError | UserError):
        return named(message)
    return StoreError(f"The server {shown} cannot do this: {message or f'it answers with {status}'}")


def _told(data: bytes) -> tuple[str, str]:
    try:
        told = json.loads(data)["error"]
        return str(told["type"]), str(told["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""
