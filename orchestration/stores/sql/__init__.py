"""What the stores over SQL databases share: the statements, the packing of rows, the sharing of transactions.

The SQL is what SQLite and PostgreSQL both understand, with `?` for values. A store over another database has
a `Connection` (connection.py), a `GroupCommit` (grouping.py) and a `SqlStore` (store.py) of its own.
"""
