"""Alembic revisions of the store's schema, applied by `open_store`."""
