"""The dashboard's files. Every path outside /api is a page: the dashboard reads the address itself."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from .answers import problem

BUNDLE = Path(__file__).parents[1] / "dashboard" / "static"
A_YEAR = "public, max-age=31536000, immutable"  # their names change with their contents

NOT_BUILT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Millrace</title>
<h1>The pages are not built</h1>
<p>The API works: <a href="/api/runs">/api/runs</a>, <a href="/api/openapi.json">/api/openapi.json</a>.</p>
<p>In a checkout of Millrace build the pages with <code>make ui</code>, then load this page again. An installed
Millrace brings them along; if it does not, install it again.</p>
</html>
"""


def page(request: Request) -> Response:
    """Return a file of the bundle, or the page that every other path is."""
    path = request.url.path
    if request.method not in ("GET", "HEAD"):
        return problem(405, "HTTPError", "Pages can only be read.")
    file = _file(path)
    if file is not None:
        cached = A_YEAR if path.startswith("/assets/") else "no-cache"
        return FileResponse(file, headers={"Cache-Control": cached})
    if path.startswith("/assets/"):
        return problem(404, "HTTPError", f"There is no {path}.")
    if not are_built():
        return HTMLResponse(NOT_BUILT, headers={"Cache-Control": "no-store"})
    return FileResponse(BUNDLE / "index.html", headers={"Cache-Control": "no-cache"})


def are_built() -> bool:
    return (BUNDLE / "index.html").is_file()


def _file(path: str) -> Path | None:
    """Return the file of the bundle that a path names, if it does."""
    try:
        file = (BUNDLE / path.lstrip("/")).resolve()
        return file if file.is_relative_to(BUNDLE.resolve()) and file.is_file() else None
    except OSError:  # a name that no file can have, such as one of 300 characters
        return None
