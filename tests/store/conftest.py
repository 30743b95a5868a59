"""Stores on each database, for the tests of the store."""

from stores import filled, new_place, postgres_server, shared_store, store

__all__ = ["filled", "new_place", "postgres_server", "shared_store", "store"]
