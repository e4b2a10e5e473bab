"""A run as one HTML page to mail to somebody: it needs no server, no network and no file beside it."""

from __future__ import annotations

from .page import Report, page_of

__all__ = ["Report", "page_of"]
