"""The contract of the runner port as a test suite: run it on a runner of your own.

    # test_my_runner.py, run by pytest
    from runners.contract import RunnerContract

    class TestMyRunner(RunnerContract):
        def make_runner(self):
            return MyTaskRunner(workers=2)

Every `test_*` method of `RunnerContract` is a promise that the rest of Millrace builds on; its docstring says
which. One runner serves all tests of a class, apart from those about starting and closing. Flags of the class
tell what an engine cannot do (see `RunnerContract`); leave them alone where you can.

pytest is needed where the suite runs, not on the workers: what they execute is in `runners.contract.tasks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .suite import RunnerContract

__all__ = ["RunnerContract"]

MODULES = ("bench", "values", "ends", "live", "calls", "life")


def __getattr__(name: str) -> Any:
    if name != "RunnerContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    # so that a failing assert shows its values
    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in MODULES))
    from .suite import RunnerContract

    return RunnerContract
