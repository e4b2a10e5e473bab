"""Helps for tests of flows, and contract suites for whoever writes a store of their own."""
