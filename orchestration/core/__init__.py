"""The coordinator: decides everything, does nothing. No clock, no thread, no socket, no logging.

`Coordinator.handle(event, now)` is the only way that run state changes. It returns commands; the driver
journals the entries among them and then performs the others.
"""
