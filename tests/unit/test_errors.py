"""The errors of the orchestration package."""

from __future__ import annotations

import pickle

from orchestration.errors import UpstreamFailedError


def test_an_upstream_failure_keeps_its_cause_when_pickled() -> None:
    """A task on another machine learns the root cause as well as one in the flow's process."""
    error = UpstreamFailedError("b[1] never ran")
    error.__cause__ = ValueError("bad")
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, UpstreamFailedError)
    assert arrived.args == ("b[1] never ran",)
    assert repr(arrived.__cause__) == "ValueError('bad')"


def test_an_upstream_failure_travels_without_a_cause_that_cannot() -> None:
    """A cause that cannot be pickled does not keep the error from arriving."""
    error = UpstreamFailedError("b[1] never ran")
    error.__cause__ = ValueError(lambda: None, open)
    error.__cause__.__dict__["file"] = (x for x in ())
    arrived = pickle.loads(pickle.dumps(error))
    assert arrived.__cause__ is None


def test_an_upstream_failure_without_a_cause_is_pickled_too() -> None:
    """The error may stand alone."""
    assert pickle.loads(pickle.dumps(UpstreamFailedError("never ran"))).__cause__ is None
