"""Stores on each database, for the tests of the store."""

from stores import filled, new_place, postgres_again, postgres_server, shared_store, sqlite_copy, store, store_of

__all__ = [
    "filled",
    "new_place",
    "postgres_again",
    "postgres_server",
    "shared_store",
    "sqlite_copy",
    "store",
    "store_of",
]
