"""The errors of the orchestration package."""

from __future__ import annotations

import copyreg

import pytest

from orchestration.errors import UpstreamFailedError
from runners.codec import dumps, loads
from runners.contract.tasks import UnpicklableError


@pytest.fixture(autouse=True)
def another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports `distributed` has all exceptions that are known by then pickled in a way of tblib's."""

    def not_this_way(error: BaseException) -> str:
        raise AssertionError(error)

    monkeypatch.setitem(copyreg.dispatch_table, UpstreamFailedError, not_this_way)


def test_an_upstream_failure_keeps_its_cause_when_pickled() -> None:
    """A task on another machine learns the root cause as well as one in the flow's process."""
    error = UpstreamFailedError("b[1] never ran")
    error.__cause__ = ValueError("bad")
    arrived = loads(dumps(error))
    assert isinstance(arrived, UpstreamFailedError)
    assert arrived.args == ("b[1] never ran",)
    assert repr(arrived.__cause__) == "ValueError('bad')"


def test_an_upstream_failure_travels_without_a_cause_that_cannot() -> None:
    """A cause that cannot be pickled does not keep the error from arriving."""
    error = UpstreamFailedError("b[1] never ran")
    error.__cause__ = UnpicklableError("mine alone")
    arrived = loads(dumps(error))
    assert arrived.__cause__ is None


def test_an_upstream_failure_without_a_cause_is_pickled_too() -> None:
    """The error may stand alone."""
    assert loads(dumps(UpstreamFailedError("never ran"))).__cause__ is None
