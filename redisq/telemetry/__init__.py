"""Traces and metrics by OpenTelemetry: `instrument` for queues and workers, `Carrier` for the context of a push.

Needs the extra `otel`. The names are those of OpenTelemetry's conventions for messaging systems, see
`docs/guides/tracing.md`.
"""

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ModuleNotFoundError(
        "redisq.telemetry needs opentelemetry-api: pip install 'redisq-lua[otel]'", name=error.name
    ) from error

from .carrier import Carrier
from .instrumentation import instrument

__all__ = ["Carrier", "instrument"]
