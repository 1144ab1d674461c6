"""Structured logs, with keys and passwords removed from every field."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from server.settings import Settings

API_KEY = re.compile(r"\btt_(admin_|pub_|jwt_|link_|session_)?[0-9A-Za-z]{8,}")
WEBHOOK_SECRET = re.compile(r"\bwhsec_[0-9A-Za-z+/=]{8,}")
URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s@/]+@")
SECRET_NAMES = re.compile(
    r"(?i)^(authorization|cookie|set-cookie|password|secret|client_secret|secrets_key|token|api_?key)$"
)


def redact(value: Any) -> Any:  # noqa: ANN401 - whatever was logged
    """Return the same value without keys and passwords in any of its texts."""
    match value:
        case str():
            text = API_KEY.sub(lambda found: f"tt_{found[1] or ''}***", value)
            text = WEBHOOK_SECRET.sub("whsec_***", text)
            return URL_PASSWORD.sub(r"\1:***@", text)
        case dict():
            return {
                key: "***" if SECRET_NAMES.match(str(key)) else redact(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [redact(item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return redact(str(value))


def redact_event(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """``redact`` as a structlog processor. Exceptions must be formatted before it."""
    kept = {key: event[key] for key in ("_record", "_from_structlog") if key in event}
    return {**redact({k: v for k, v in event.items() if k not in kept}), **kept}


def configure_logging(settings: Settings) -> None:
    """Send our logs and those of libraries to standard error. Call once, in a process's main."""
    style = settings.log_format
    text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if text
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # at our level they would log a line for each request or statement
    for name in ("aiosqlite", "alembic", "sqlalchemy.engine"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
