"""Where Postgres is, as the settings say it."""

import psycopg
from psycopg.conninfo import conninfo_to_dict

from agentflow.errors import ConfigError


def checked(dsn: str) -> str:
    """The DSN, if it can be read. Raises ConfigError, which does not repeat it: passwords stand there."""
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigError(
            "postgres.url is no address of Postgres; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with no "
            "parameters but those of libpq.",
            field="postgres.url",
        ) from None
    return dsn
