"""Run by alembic: migrate over the connection that `heedful.store.database.migrate` hands in."""

from alembic import context

from heedful.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
