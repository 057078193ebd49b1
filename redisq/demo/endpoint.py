"""The other side of the batching job: an HTTP endpoint that takes one group a request, and no more than its limit."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Endpoint:
    """A server that takes batches by POST on a loopback port, from `with` to the end of it.

    200: taken. 400: not a batch of one package. 429: more than `limit` requests in some span of `per` seconds, by its
    own clock and to the last one. It keeps its own tally, by the actions' ids.
    """

    def __init__(self, limit: int, per: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.per = per
        self._clock = clock
        self.received: Counter[str] = Counter()
        """How often each action came."""
        self.taken = self.refused = self.malformed = 0
        self.busiest = 0
        """The most requests that it took in any span."""
        self._arrivals: deque[float] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> Endpoint:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.server_port

    def receive(self, body: bytes) -> int:
        """Judge one request and return the status of the answer."""
        with self._lock:
            now = self._clock()
            while self._arrivals and self._arrivals[0] <= now - self.per:
                self._arrivals.popleft()
            if len(self._arrivals) >= self.limit:
                self.refused += 1
                return 429
            self._arrivals.append(now)
            self.busiest = max(self.busiest, len(self._arrivals))
            try:
                batch = json.loads(body)
                ids = [action["id"] for action in batch["actions"]]
                whole = ids and {action["package"] for action in batch["actions"]} == {batch["package"]}
            except (ValueError, TypeError, KeyError):
                whole = False
            if not whole:
                self.malformed += 1
                return 400
            self.taken += 1
            self.received.update(ids)
            return 200


class _Server(ThreadingHTTPServer):
    endpoint: Endpoint

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a sender that was killed is not worth a traceback
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the sender died over it: it has not arrived
            self.close_connection = True
            return
        self.send_response(self.server.endpoint.receive(body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing: the display does."""
