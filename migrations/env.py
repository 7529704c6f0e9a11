"""Alembic's environment: runs on the connection, and in the transaction, that server_ext.migrate gives it."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run the migrations with: v6-largefile db upgrade -c CONFIG")

context.configure(connection=connection, version_table=context.config.attributes["version_table"])
with context.begin_transaction():
    context.run_migrations()
