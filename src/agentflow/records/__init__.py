"""Postgres: the embedded server, migrations, connections, and the records in it."""
