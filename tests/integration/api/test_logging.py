"""Log lines and prints of tasks and flows in the record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration import flow, get_run_logger, runtime, task
from orchestration.errors import UserError
from runners.base import TaskRunner


@task
def says(text: str) -> str:
    get_run_logger().info("info %s", text)
    get_run_logger().warning("warning %s", text)
    return text


@task(log_prints=True)
def prints(text: str) -> None:
    print("printed", text)
    print("again", text, sep="-", end="!")


def test_lines_of_tasks(runner: TaskRunner, record: Any) -> None:
    """Lines have their task run, attempt, level, logger and time."""

    @flow(task_runner=runner)
    def main() -> None:
        says.map(["a", "b"])

    main()
    rows = [row for row in record.logs() if row.task_name == "says"]
    assert sorted((row.index, row.level, row.message) for row in rows) == [
        (0, logging.INFO, "info a"),
        (0, logging.WARNING, "warning a"),
        (1, logging.INFO, "info b"),
        (1, logging.WARNING, "warning b"),
    ]
    row = record.run()
    assert {r.attempt for r in rows} == {1}
    assert all(row.created - 5 <= r.at <= row.ended + 5 for r in rows)


def test_lines_of_each_attempt(runner: TaskRunner, record: Any) -> None:
    """A retried task run has the lines of all its attempts, each with its number, also of failed ones."""

    @task(retries=2)
    def flaky() -> None:
        get_run_logger().info("try %d", runtime.task_run.attempt)
        if runtime.task_run.attempt < 3:
            raise ValueError("no")

    @flow(task_runner=runner)
    def main() -> None:
        flaky.submit().wait()

    main()
    assert [(r.attempt, r.message) for r in record.logs() if r.node_id >= 0] == [
        (1, "try 1"),
        (2, "try 2"),
        (3, "try 3"),
    ]


def test_lines_of_the_flow(runner: TaskRunner, record: Any) -> None:
    """The flow function has its own lines."""

    @flow(task_runner=runner)
    def main() -> Any:
        get_run_logger().info("begins")
        says.submit("x").wait()
        get_run_logger().error("ends")

    main()
    assert [r.message for r in record.logs() if r.node_id == -1] == ["begins", "ends"]


def test_log_prints(runner: TaskRunner, record: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints become lines where `log_prints` is set, by the task or by its flow, and only there."""

    @task
    def quiet() -> None:
        print("not a line")

    @flow(task_runner=runner, log_prints=True)
    def main() -> None:
        print("from the flow")
        prints.submit("x")
        quiet.with_options(log_prints=False).submit()
        quiet.submit().wait()

    main()
    assert sorted(record.lines()) == ["again-x", "from the flow", "not a line", "printed x"]


def test_lines_come_before_the_terminal_state(runner: TaskRunner, record: Any) -> None:
    """When a task run counts as ended, its lines are in the record."""

    @flow(task_runner=runner)
    def main() -> Any:
        for n in range(5):
            future = says.submit(str(n))
            future.wait()
            messages = [row.message for row in record.logs() if row.node_id == future.node_id]
            assert messages == [f"info {n}", f"warning {n}"]

    main()


def test_called_tasks_log_to_their_own_task_run(runner: TaskRunner, record: Any) -> None:
    """The lines of a task that is called belong to it, and not to the flow or task around it."""

    @task
    def outer() -> None:
        get_run_logger().info("outer before")
        says("inner")
        get_run_logger().info("outer after")

    @flow(task_runner=runner)
    def main() -> None:
        outer.submit().wait()
        says("direct")

    main()
    lines = [(row.task_name, row.message) for row in record.logs()]
    assert sorted(lines) == sorted(
        [
            ("outer", "outer before"),
            ("says", "info inner"),
            ("says", "warning inner"),
            ("outer", "outer after"),
            ("says", "info direct"),
            ("says", "warning direct"),
        ]
    )


def test_strange_lines(runner: TaskRunner, record: Any) -> None:
    """Lines with bad format arguments, lone surrogates or many lines neither fail the task nor get lost."""

    @task
    def strange() -> int:
        log = get_run_logger()
        log.info("bad surrogate \udcff")
        log.info("two\nlines")
        for n in range(2000):
            log.debug("%d", n)
        return 1

    @flow(task_runner=runner)
    def main() -> Any:
        return strange.submit()

    assert main() == 1
    lines = record.lines()
    assert len(lines) == 2002
    assert "two\nlines" in lines


def test_exceptions_in_lines(runner: TaskRunner, record: Any) -> None:
    """`logger.exception` records the traceback."""

    @task
    def careful() -> None:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            get_run_logger().exception("caught")

    @flow(task_runner=runner)
    def main() -> None:
        careful.submit()

    main()
    (line,) = record.lines()
    assert line.startswith("caught")
    assert "ZeroDivisionError" in line


def test_no_run_no_logger() -> None:
    """Outside of flows and tasks there is no run to log to."""
    with pytest.raises(UserError, match="neither a task nor a flow"):
        get_run_logger()


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A logger of a user's package that takes INFO and is named in the settings, with one above it, too."""
    monkeypatch.setenv("MILLRACE_LOG_LOGGERS", "shop, shop.stock")
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    yield logger
    logger.setLevel(logging.NOTSET)


@task
def sells(text: str) -> None:
    import logging

    logging.getLogger("shop.stock.shelf").info("sold %s", text)
    logging.getLogger("shop").debug("nobody wants to know")
    logging.getLogger("elsewhere").error("none of the run's")


def test_lines_of_loggers_that_are_named(runner: TaskRunner, record: Any, named: logging.Logger) -> None:
    """Each once, of the task run or else the flow that logs them, at the level of the flow's process."""

    @flow(task_runner=runner)
    def main() -> None:
        named.warning("opens")
        sells.map(["tea", "milk"])
        sells("salt")

    main()
    named.warning("after the run")
    lines = sorted((row.task_name, row.index, row.level, row.logger, row.message) for row in record.logs())
    shelf = "shop.stock.shelf"
    assert lines == [
        ("", 0, logging.WARNING, "shop", "opens"),
        ("sells", 0, logging.INFO, shelf, "sold salt"),
        ("sells", 0, logging.INFO, shelf, "sold tea"),
        ("sells", 1, logging.INFO, shelf, "sold milk"),
    ]


def test_loggers_that_are_not_named(runner: TaskRunner, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of them is recorded, also after a run in the same processes that has named them."""
    monkeypatch.delenv("MILLRACE_LOG_LOGGERS", raising=False)

    @flow(task_runner=runner)
    def main() -> None:
        sells.submit("tea")

    main()
    assert record.logs() == []
