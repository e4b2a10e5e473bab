"""The HTTP API and the pages of `millrace server start`: the records of a store for programs and people.

It needs nothing but the store that runs write, and no run needs it.
"""
