"""What systemd is told of a service of `Type=notify`: sd_notify(3), one datagram to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


class ServiceManager:
    """The service manager that started this process, if there is one that wants to be told."""

    def __init__(self) -> None:
        # Not for the processes that are started from here: they are not services of their own.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        mine = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.every = int(microseconds) / 3e6 if microseconds.isdigit() and mine else float("inf")
        """Seconds after which the watchdog wants to be told again."""
        self._due = 0.0
        self._said: set[str] = set()

    def notify_once(self, state: str) -> None:
        """Tell a state, the first time."""
        if state not in self._said:
            self._said.add(state)
            self._send(state)

    def watchdog(self, alive: bool) -> None:
        """Tell the watchdog, as often as it wants, that all is well; if not, it restarts the service."""
        if alive and monotonic() >= self._due and self.every < float("inf"):
            self._due = monotonic() + self.every
            self._send(WATCHDOG)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        # A name that begins with @ is one of Linux's abstract sockets.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)
