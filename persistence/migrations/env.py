"""What alembic runs for a migration: on the connection, and in the transaction, of `schema.upgrade`."""

from alembic import context

from persistence.tables import SCHEMA

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table=attributes["version_table"],
    target_metadata=SCHEMA,
)
context.run_migrations()
