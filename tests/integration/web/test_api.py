"""The HTTP API over runs that flows have made."""

from __future__ import annotations

import json
import re
import struct
import time
from array import array
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from orchestration.core.states import State
from runners.messages import Outcome

from .conftest import Served, start_server


@pytest.fixture(scope="session")
def checks(served: Served) -> str:
    """A run of 30 task runs of which 3 failed."""
    return served.run("checks")


def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Look until what is seen is as wanted; return it."""
    for _ in range(600):
        seen = look()
        if wanted(seen):
            return seen
        time.sleep(0.05)
    pytest.fail(f"never: {seen}")


def test_a_run_and_its_nodes(served: Served, checks: str) -> None:
    """By id, by the beginning of it and by name."""
    run = served.read(f"/api/runs/{checks}")
    assert (run["flow"], run["state"], run["counts"]) == (
        "checks",
        "Completed",
        {"Completed": 27, "Failed": 3},
    )
    assert run["can"] == {"cancel": False, "pause": False, "resume": False, "retry": True}
    assert (
        served.read(f"/api/runs/{checks[:10]}")["id"]
        == served.read(f"/api/runs/{run['name']}")["id"]
        == checks
    )
    (node,) = served.read(f"/api/runs/{checks}/nodes")
    assert (node["task"], node["width"], node["counts"]) == ("check", 30, run["counts"])


def test_lists_have_pages(served: Served, checks: str) -> None:
    """`next` leads through all of them once."""
    seen, cursor = [], None
    while True:
        page = served.read(
            f"/api/runs/{checks}/task-runs", limit=13, **({"cursor": cursor} if cursor else {})
        )
        seen += [row["index"] for row in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == list(range(30))
    more = [served.run("slow", n=1) for _ in range(3)]
    first = served.read("/api/runs", flow="slow", limit=2)
    rest = served.read("/api/runs", flow="slow", limit=50, cursor=first["next"])
    assert [run["id"] for run in first["items"] + rest["items"]][:3] == more[::-1]


@pytest.mark.parametrize(
    ("query", "there"),
    [
        ({"search": "CHECKS"}, True),
        ({"flow": "slow"}, False),
        ({"state": ["Failed", "Completed"]}, True),
        ({"state": "Crashed"}, False),
        ({"tag": "none"}, False),
        ({"until": 1.0}, False),
        ({"since": 1.0}, True),
    ],
)
def test_filters(served: Served, checks: str, query: dict[str, Any], there: bool) -> None:
    """By words, flow, state, tag and time; the summary counts the same."""
    found = [run["id"] for run in served.read("/api/runs", limit=1000, **query)["items"]]
    assert (checks in found) is there
    assert sum(served.read("/api/runs/summary", **query)["states"].values()) == len(found)


def test_a_task_run_tells_its_story(served: Served, checks: str) -> None:
    """Both attempts with their errors, and all of it in words."""
    found = served.read(f"/api/runs/{checks}/nodes/0/items/13")
    assert (found["kind"], found["width"]) == ("map", 30)
    assert [one["state"] for one in found["attempts"]] == ["AwaitingRetry", "Failed"]
    assert "ValueError: no 13" in found["error"]
    assert re.match(r"Attempt 2 ended Failed after \d+(\.\d+)? m?s on ", found["story"][-1])
    failed = served.read(f"/api/runs/{checks}/task-runs", state="Failed")["items"]
    assert [row["index"] for row in failed] == [3, 13, 23]


def test_a_stored_result_is_shown_to_those_who_may_run_flows(served: Served, checks: str) -> None:
    """As text; of one that is not stored it says so."""
    run = served.run("keeping")
    path = f"/api/runs/{run}/nodes/0/items/2"
    assert served.read(path)["stored"] is True
    assert served.read(f"{path}/result")["text"] == "{'kept': 2}"
    assert served.read(f"/api/runs/{checks}/nodes/0/items/1/result") == {
        "text": None,
        "why": "No result of it is stored.",
    }


def test_errors_are_counted_once(served: Served, checks: str) -> None:
    """By the lines that raised them, with where the first and the last was."""
    (group,) = served.read(f"/api/runs/{checks}/errors")
    assert (group["type"], group["count"], group["root"], group["cause"]) == ("ValueError", 3, True, None)
    assert {group["first"]["index"], group["last"]["index"]} < {3, 13, 23}
    assert group["first"]["at"] <= group["last"]["at"]
    assert group["message"] == f"no {group['first']['index']}"
    assert "Traceback" in group["traceback"]


def test_errors_tell_root_causes_from_what_followed(served: Served) -> None:
    """What never ran is no root: it points to the task run whose failure it was, in the list and by itself."""
    run = served.run("chained", n=2000)
    root, never = served.read(f"/api/runs/{run}/errors")
    assert (root["type"], root["count"], root["root"]) == ("ValueError", 200, True)
    assert (never["type"], never["count"], never["root"]) == ("UpstreamFailed", 200, False)
    assert never["cause"] == {"node": 0, "index": never["first"]["index"]}
    (one, *_) = served.read(f"/api/runs/{run}/task-runs", state="UpstreamFailed")["items"]
    assert (one["node"], one["root"]) == (1, {"node": 0, "index": one["index"]})


def test_states_as_bytes(served: Served, checks: str) -> None:
    """One byte for each item."""
    states = served.get(f"/api/runs/{checks}/nodes/0/states").content
    wanted = [State.FAILED if n % 10 == 3 else State.COMPLETED for n in range(30)]
    assert list(states) == wanted


def test_the_timeline_in_columns(served: Served, checks: str) -> None:
    """All attempts, the failed ones twice."""
    data = served.get(f"/api/runs/{checks}/timeline").content
    magic, n, length = struct.unpack_from("<4sII", data)
    assert (magic, n) == (b"MRTL", 33)
    head = json.loads(data[12 : 12 + length])
    at = 12 + length + -(12 + length) % 8
    columns = []
    for kind, size in (("d", 8), ("f", 4), ("I", 4), ("I", 4), ("H", 2), ("B", 1), ("B", 1), ("B", 1)):
        columns.append(array(kind, data[at : at + n * size]))
        at += n * size + -(n * size) % 8
    assert at == len(data)
    started, seconds, nodes, indices, workers, attempts, states, outcomes = columns
    run = served.read(f"/api/runs/{checks}")
    assert all(run["started"] - 1 < one < run["ended"] + 1 for one in started)
    assert min(seconds) >= 0
    assert set(nodes) == {0}
    assert max(workers) < len(head["workers"])
    assert sorted(indices) == sorted([*range(30), 3, 13, 23])
    assert attempts.count(2) == 3
    assert states.count(State.AWAITING_RETRY) == 3
    assert outcomes.count(Outcome.FAILED) == 6
    rest = served.get(f"/api/runs/{checks}/timeline", after=head["next"]).content
    assert struct.unpack_from("<4sI", rest) == (b"MRTL", 0)
    assert json.loads(rest[12 : 12 + struct.unpack_from("<I", rest, 8)[0]])["whole"] is False
    assert served.get(f"/api/runs/{checks}/timeline", after="soon").status_code == 422


def test_logs(served: Served) -> None:
    """From a place on, by words, of one task run."""
    run = served.run("slow", n=5)
    lines = served.read(f"/api/runs/{run}/logs")["items"]
    assert sorted(line["message"] for line in lines) == [f"item {n}" for n in range(5)]
    after = served.read(f"/api/runs/{run}/logs", after=lines[1]["seq"])["items"]
    assert after == lines[2:]
    assert [line["index"] for line in served.read(f"/api/runs/{run}/logs", search="ITEM 3")["items"]] == [3]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/runs/none-such", 404, "There is no run"),
        ("/api/runs?state=Odd", 422, "There are: Pending"),
        ("/api/runs?limit=0", 422, "limit"),
        ("/api/runs?cursor=x", 422, "no cursor"),
        ("/api/odd", 404, "/api/openapi.json"),
        ("/assets/odd.js", 404, "There is no"),
    ],
)
def test_errors_say_what_is_wrong(served: Served, path: str, status: int, words: str) -> None:
    """As JSON with a type and a message."""
    answer = served.get(path)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_a_run_is_started_watched_paused_and_cancelled(served: Served) -> None:
    """Its stream tells of it; its process is not the server's."""
    begun = served.do(
        "POST",
        "/api/runs",
        {"entrypoint": f"{served.flows}:slow", "parameters": {"n": 2000, "seconds": 0.02}},
    )
    assert begun.status_code == 202, begun.text
    path = f"/api/runs/{begun.json()['run']}"
    with httpx.stream("GET", f"{served.url}{path}/stream", timeout=30) as stream:
        lines = stream.iter_lines()
        heard = set[str]()
        while not {"run", "nodes", "items", "logs"} <= heard:
            line = next(lines)
            if line.startswith("event: "):
                heard.add(line.removeprefix("event: "))
    assert served.do("POST", f"{path}/pause").status_code == 202
    assert served.read(path)["state"] == "Paused"
    assert served.read(path)["can"]["resume"]
    assert served.do("POST", f"{path}/resume").status_code == 202
    busy = until(
        lambda: served.read("/api/workers"), lambda seen: any(one["task"] == "pause" for one in seen)
    )
    assert {one["kind"] for one in busy if one["task"] == "pause"} == {"map"}
    pid = served.read(path)["pid"]
    assert all(f":{pid}:millrace-slot-" in one["worker"] for one in busy if one["run"] == begun.json()["run"])
    assert served.do("POST", f"{path}/cancel").status_code == 202
    until(lambda: served.read(path)["state"], lambda state: state == "Cancelled")
    refused = served.do("POST", f"{path}/pause")
    assert refused.status_code == 409
    assert "has ended (Cancelled)" in refused.json()["error"]["message"]


def test_a_run_is_retried_and_a_flow_that_is_not_there_is_said(served: Served, checks: str) -> None:
    """A new run of the same flow; an entry point that is wrong gets its process's own words."""
    again = served.do("POST", f"/api/runs/{checks}/retry", {"failed_only": False})
    assert again.status_code == 202, again.text
    path = f"/api/runs/{again.json()['run']}"
    assert until(lambda: served.read(path)["state"], lambda state: state == "Completed")
    assert again.json()["run"] != checks
    missing = served.do("POST", "/api/runs", {"entrypoint": "nowhere.py:main"})
    assert missing.status_code == 422
    assert "nowhere.py" in missing.json()["error"]["message"]


def test_the_form_of_a_flow_and_where_time_went(served: Served, checks: str) -> None:
    """From the signature of its newest run's flow; one that nobody has run has none."""
    form = served.read("/api/flows/checks/form")
    assert form["entrypoint"] == f"{served.flows}:checks"
    assert form["schema"]["properties"]["n"] == {"default": 30, "title": "N", "type": "integer"}
    assert served.get("/api/flows/nobody/form").status_code == 404
    (node,) = served.read(f"/api/runs/{checks}/timing")["nodes"]
    assert (node["task"], node["retries"]) == ("check", 3)


def test_a_page_that_comes_later_knows_as_much(served: Served, checks: str) -> None:
    """The run and its nodes come to each page, also where another one watches already."""

    def first_events(lines: Any) -> set[str]:
        heard = set[str]()
        while not {"event: run", "event: nodes"} <= heard:
            heard.add(next(lines))
        return heard

    with httpx.stream("GET", f"{served.url}/api/runs/{checks}/stream", timeout=30) as first:
        first_events(first.iter_lines())
        with httpx.stream("GET", f"{served.url}/api/runs/{checks}/stream", timeout=30) as second:
            assert first_events(second.iter_lines())


def test_limits_are_set_and_removed(served: Served) -> None:
    """What the command line sees, too."""
    assert served.do("PUT", "/api/limits/db", {"slots": 3}).status_code == 200
    (limit,) = served.read("/api/limits")
    assert (limit["name"], limit["slots"], limit["holders"]) == ("db", 3, [])
    for wrong in (0, True, "3"):
        assert served.do("PUT", "/api/limits/db", {"slots": wrong}).status_code == 422
    assert served.do("DELETE", "/api/limits/db").status_code == 200
    assert served.do("DELETE", "/api/limits/db").status_code == 404


def test_other_sites_cannot_use_it(served: Served, checks: str) -> None:
    """Not by a form, not by a name that points here, not by framing it."""
    form = httpx.post(f"{served.url}/api/runs/{checks}/retry", data={"a": "b"})
    assert form.status_code == 403
    assert "Millrace-Request" in form.json()["error"]["message"]
    rebound = httpx.get(f"{served.url}/api/runs", headers={"Host": "evil.example:80"})
    assert rebound.status_code == 403
    answer = served.get("/")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    large = served.do("POST", "/api/runs", {"entrypoint": "x:y", "parameters": {"a": "b" * (1 << 21)}})
    assert large.status_code == 413


def test_it_stops_with_pages_open(tmp_path: Any) -> None:
    """They are told; nothing is left behind."""
    process = start_server(tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    with httpx.stream("GET", f"{url}/api/stream", timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        process.terminate()
        assert "event: bye" in list(lines)
    out, _ = process.communicate(timeout=20)
    assert process.returncode in (0, -15)
    assert "Traceback" not in out


def test_what_cannot_be_served_is_said_at_once(tmp_path: Any, served: Served) -> None:
    """An address that others can reach, a port that is taken."""

    def words(*arguments: str) -> str:
        process = start_server(tmp_path, *arguments)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2, out
        return out

    assert "millrace token create" in words("--host", "0.0.0.0")
    assert "millrace token create" in words("--require-token")
    port = served.url.rpartition(":")[2]
    assert f"port {port}" in words("--port", port)


def test_metrics_and_health(served: Served, checks: str) -> None:
    """For monitoring."""
    assert served.read("/api/health")["status"] == "ok"
    assert 'millrace_runs{state="Completed"}' in served.get("/api/metrics").text


def test_the_server_may_die_at_any_time(served: Served, tmp_path: Any) -> None:
    """A run that it has started goes on without it."""
    process = start_server(served.home)
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    begun = httpx.post(
        f"{url}/api/runs",
        json={"entrypoint": f"{served.flows}:slow", "parameters": {"n": 40}},
        headers={"Millrace-Request": "1"},
        timeout=60,
    )
    process.kill()
    process.wait()
    run = begun.json()["run"]
    assert until(lambda: served.read(f"/api/runs/{run}")["state"], lambda state: state == "Completed")
