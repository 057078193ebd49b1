"""SIGTERM and SIGINT while workers run: they belong to the process, and every worker of it hears them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

_NUMBERS = (signal.SIGTERM, signal.SIGINT)
_targets: tuple[Callable[[], object], ...] = ()
_before: dict[int, Any] = {}
_raised: list[BaseException] = []


@contextlib.contextmanager
def listening(target: Callable[[], object]) -> Iterator[None]:
    """Call `target` for each SIGTERM and SIGINT, if this is the main thread: no other may say what a signal does.

    It is called between any two instructions of the main thread, so it must take no lock: what was interrupted may
    hold that lock. A handler that the application had set before is called as well, so that a web server around a
    worker shuts down too. What that one raises, such as SystemExit, is raised when the last worker has ended: raised at
    once it would cut short what the workers are still finishing.
    """
    global _targets
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _targets:
        for number in _NUMBERS:
            before = signal.getsignal(number)
            if before is not None:  # else it is one of C, which could be neither called nor set again
                _before[number] = before
                signal.signal(number, _on_signal)
    _targets = (*_targets, target)
    try:
        yield
    finally:
        _targets = tuple(one for one in _targets if one is not target)
        if not _targets:
            _stop_listening()


def _stop_listening() -> None:
    for number, handler in _before.items():
        if signal.getsignal(number) is _on_signal:  # else the application has set its own meanwhile
            signal.signal(number, handler)
    _before.clear()
    if _raised:
        error = _raised[0]
        _raised.clear()
        raise error


def _on_signal(number: int, frame: Any) -> None:
    for target in _targets:
        target()
    before = _before.get(number)
    if callable(before) and not _is_default(before):
        try:
            before(number, frame)
        except BaseException as error:
            _raised.append(error)


def _is_default(handler: Any) -> bool:
    """Say whether this is Python's own handler, which would end what the workers are still finishing.

    asyncio.Runner's, which is also that of `asyncio.run`, cancels the main task.
    """
    if handler is signal.default_int_handler:
        return True
    return getattr(getattr(handler, "func", None), "__qualname__", "") == "Runner._on_sigint"
