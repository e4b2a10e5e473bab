"""The only shell around the core: it has the threads, the clock, the store and the runner.

One turn: take all waiting events, let the core handle them, journal what it wants written in one
transaction, then perform what it wants done.
"""
