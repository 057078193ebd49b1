"""Commands in one round trip on a connection of the client's pool, blocking.
# Written from the asyncio file of the same name by tools/async_to_sync.py: edit that one.

redis-py's clients and their pipelines take as much time in Python as the server needs for the commands, most of it to
pack their arguments one by one. Here hiredis packs them, where it is installed, and they are sent and read by the
public methods of a connection, as those clients do. `python -m benchmarks worker` shows the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.clients import connection_arguments

Command = tuple[Any, ...]

_JOINED = 1 << 20
"""bytes up to which commands are sent in one piece"""

_pack: Callable[[Command], bytes] | None
try:
    from hiredis import pack_command as _pack
except ImportError:
    _pack = None


class RoundTrip:
    """Sends commands at once on a connection of a client's pool, and again as the client's `Retry` says."""

    def __init__(self, client: Any, reply_errors: tuple[type[Exception], ...]) -> None:
        self._pool = client.connection_pool
        self._arguments = connection_arguments(self._pool)
        self._reply_errors = reply_errors

    def send(self, commands: Sequence[Command], *, renew: bool = False) -> list[Any]:
        """Return the reply or the error of each command, undecoded; raise what befell all of them.

        With `renew` the connection is made anew first, wherever the server's name leads by now.
        """
        connection = self._pool.get_connection(*self._arguments)
        connected = not renew  # by the pool

        def exchange() -> list[Any]:
            nonlocal connected
            if not connected:
                connection.connect()  # the one behind a Sentinel asks it here who the master is
            connected = False  # if it is to be done again, because this has failed
            return self._talk(connection, _packed(connection, commands), len(commands))

        def failed(_: Exception) -> None:
            connection.disconnect()

        try:
            if renew:
                connection.disconnect()
            return connection.retry.call_with_retry(exchange, failed)  # type: ignore[no-any-return]
        except BaseException:
            connection.disconnect()  # a reply that comes yet would be taken for the next one's
            raise
        finally:
            self._pool.release(connection)

    def _talk(self, connection: Any, packed: list[bytes], count: int) -> list[Any]:
        """Send commands, and return so many replies."""
        connection.send_packed_command(packed)
        return [self._read(connection) for _ in range(count)]

    def _read(self, connection: Any) -> Any:
        try:
            return connection.read_response(disable_decoding=True)
        except self._reply_errors as error:
            return error


def _packed(connection: Any, commands: Sequence[Command]) -> list[bytes]:
    if _pack is None:
        return connection.pack_commands(commands)  # type: ignore[no-any-return]
    try:
        packed = [_pack(command) for command in commands]
    except TypeError:  # an argument of another kind: the connection converts or refuses it
        return connection.pack_commands(commands)  # type: ignore[no-any-return]
    if len(packed) > 1 and sum(map(len, packed)) < _JOINED:
        return [b"".join(packed)]  # a blocking connection makes a system call for each piece
    return packed
