"""How long-running commands log: lines for people, or one JSON document a line for programs."""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from ..core.documents import time_json

_FORMAT = "%(asctime)s %(levelname)s %(processName)s %(name)s: %(message)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how to log."""
    parser.add_argument(
        "--log", choices=["text", "json"], default="text", help="lines for people, or JSON lines (%(default)s)"
    )


def configure(kind: str, level: int) -> None:
    """Log to stderr from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler])


class JsonFormatter(logging.Formatter):
    """A formatter that writes one JSON document a line: what every record has, then what this one carries."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document: dict[str, Any] = {
            "time": time_json(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
        }
        document |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)
