"""Streams whose connection breaks: nothing is missed, or it is said that something is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import httpx

from .conftest import Served


def events(lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """The id, name and data of each event."""
    told: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            told[name] = value
        elif "data" in told:
            yield told.get("id", ""), told["event"], told["data"]
            told = {}


def listen(url: str, last: str | None = None, **params: Any) -> Any:
    """Open a stream, as a browser that connects again."""
    headers = {"Last-Event-ID": last} if last else {}
    return httpx.stream("GET", url, headers=headers, params=params, timeout=30)


def test_a_page_that_comes_back_gets_what_it_has_missed(served: Served) -> None:
    """By the header or the query; what was told meanwhile is told again, and nothing needs to be read anew."""
    begun = served.do(
        "POST", "/api/runs", {"entrypoint": f"{served.flows}:slow", "parameters": {"n": 60, "seconds": 0.05}}
    )
    url = f"{served.url}/api/runs/{begun.json()['run']}/stream"
    with listen(url) as stream:
        last = next(mark for mark, _, _ in events(stream.iter_lines()) if mark)
    with listen(url) as other:  # in whose time the run goes on
        for _, name, data in events(other.iter_lines()):
            if name == "run" and json.loads(data)["ended"]:
                break
    for how in ({"last": last}, {"last_event_id": last}):
        with listen(url, **how) as stream:
            heard = dict[str, str]()
            for _, name, data in events(stream.iter_lines()):
                heard[name] = data
                if name == "logs":  # the last of those that come together
                    break
        assert json.loads(heard["run"])["state"] == "Completed"
        assert "items" in heard
        assert "reset" not in heard


def test_what_cannot_be_told_again_is_to_be_read_again(served: Served) -> None:
    """An id of another server's life, one that makes no sense; a page without any is told of no gap."""
    run = served.run("checks")
    url = f"{served.url}/api/runs/{run}/stream"
    for last in ("0123abcd-7", "nonsense"):
        with listen(url, last) as stream:
            names = [name for _, name, _ in islice(events(stream.iter_lines()), 3)]
        assert names == ["reset", "run", "nodes"]
    with listen(url) as stream:
        names = [name for _, name, _ in islice(events(stream.iter_lines()), 2)]
    assert names == ["run", "nodes"]
