"""Logging: structlog to stderr, JSON or readable; names of log keys live with the calls that bind them."""

import logging
import sys

import structlog

from agentflow.telemetry.redactor import Redactor

LOUD = ("httpx", "httpcore", "psycopg.pool", "alembic", "urllib3", "huggingface_hub", "procrastinate")
"""Libraries of which only warnings are of interest."""


def configure(*, readable: bool, level: str = "info", content: bool = False) -> None:
    """Send structlog and the standard library's loggers to stderr, through one chain.

    What people said is left out unless `content`; secrets always are.
    """
    chain = _chain(content=content)
    structlog.configure(
        processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(readable=readable),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
    # How jobs end is told by records/jobs.py; of its own worker the library still says what breaks.
    logging.getLogger("procrastinate.worker").setLevel(logging.CRITICAL)
    logging.getLogger("procrastinate.worker.worker").setLevel(logging.WARNING)


def _chain(*, content: bool) -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.ExceptionRenderer(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        Redactor(content=content),
    ]


def _renderer(*, readable: bool) -> structlog.typing.Processor:
    if readable:
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer()
