"""A census of real source code: every Python file of this installation, read, parsed, measured, summed up.

`python -m examples.census` runs it on four runners one after another and compares them. To learn how a flow is
written, read `flow.py`; the other modules are what any program would have.
"""
