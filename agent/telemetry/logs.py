"""Logs: structlog over the standard library, JSON for machines and text for people.

Everything goes through `logging`, so that livekit-agents carries the records of a job's process to its
worker and one handler writes them all. Logs hold ids, never what somebody said.
"""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

__all__ = ["configure_logs", "configure_structlog"]

LEFTOVERS = ("message",)  # what livekit-agents leaves in the records of its jobs' processes
LIBRARIES = ("livekit", "livekit.agents")
LIBRARY_CHATTER = (
    "event loop blocked for",  # whenever the machine is busy for 100 ms
    "livekit_ffi::server:279",  # handles that it drops itself at the end
    "livekit::rtc_engine::rtc_session:704",  # the end of every connection
)


def configure_structlog() -> None:
    """Send structlog's events to `logging`; for every process, also a job's, whose handler is LiveKit's."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.stdlib.render_to_log_kwargs,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def configure_logs(
    level: Literal["debug", "info", "warning", "error"], style: Literal["auto", "json", "text"]
) -> None:
    """Write the logs of this process to standard error.

    Args:
        level: The least that is written.
        style: `auto` is text on a terminal and JSON elsewhere.
    """
    configure_structlog()
    is_json = style == "json" or (style == "auto" and not sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if is_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    if level != "debug":
        handler.addFilter(_is_worth_a_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                _drop_leftovers,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its lower levels print every signalling message.
    logging.getLogger("livekit").setLevel(logging.WARNING if level != "debug" else logging.INFO)
    logging.getLogger("livekit.agents").setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each look at a database
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # of broken connections, which we tell ourselves


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether a record tells an operator anything; `debug` shows all of them."""
    return not record.getMessage().startswith(LIBRARY_CHATTER) if record.name in LIBRARIES else True


def _drop_leftovers(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key in LEFTOVERS:
        event.pop(key, None)
    return event
