"""SIGTERM and SIGINT while workers run: they belong to the process, and every worker of it hears them.

uvicorn's way of doing it, turned round: a handler that the application had set before is called as well, so a web
server around a worker shuts down too.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_targets: tuple[Callable[[], object], ...] = ()
_before: dict[int, Any] = {}


@contextlib.contextmanager
def listening(target: Callable[[], object]) -> Iterator[None]:
    """Call `target` for each SIGTERM and SIGINT, if this is the main thread, which alone may say so.

    It is called between any two instructions of the main thread, so it must take no lock: what was interrupted may
    hold that lock.
    """
    global _targets
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _targets:
        _before.update({number: signal.signal(number, _on_signal) for number in _NUMBERS})
    _targets = (*_targets, target)
    try:
        yield
    finally:
        _targets = tuple(one for one in _targets if one is not target)
        if not _targets:
            for number, handler in _before.items():
                if signal.getsignal(number) is _on_signal:  # else the application has set its own meanwhile
                    signal.signal(number, handler)
            _before.clear()


def _on_signal(number: int, frame: Any) -> None:
    for target in _targets:
        target()
    before = _before.get(number)
    if callable(before) and not _is_default(before):
        before(number, frame)


def _is_default(handler: Any) -> bool:
    """Say whether this is Python's own handler: it would end what the workers are still finishing."""
    if handler is signal.default_int_handler:
        return True
    runner = getattr(asyncio, "Runner", None)  # from Python 3.11 on, its handler cancels the main task
    return runner is not None and isinstance(getattr(getattr(handler, "func", None), "__self__", None), runner)
