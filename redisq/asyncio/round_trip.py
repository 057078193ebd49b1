"""Commands in one round trip, on a connection of the client's pool.

redis-py's asyncio client and its pipeline take as much time in Python as the server needs for the commands, most of it
to pack their arguments one by one. Here hiredis packs them, where it is installed, and they are sent and read by the
public methods of a connection, as that client does. `python -m benchmarks worker` shows the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..core.clients import connection_arguments

Command = tuple[Any, ...]

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

    async def send(self, commands: Sequence[Command], *, renew: bool = False) -> list[Any]:
        """Return the reply or the error of each command, undecoded; raise what befell all of them.

        With `renew` the connection is made anew first, wherever the server's name leads by now.
        """
        connection = await self._pool.get_connection(*self._arguments)

        async def exchange() -> list[Any]:
            if not connection.is_connected:
                await connection.connect()  # the one behind a Sentinel asks it here who the master is
            await connection.send_packed_command(_packed(connection, commands))
            return [await self._read(connection) for _ in commands]

        async def failed(_: Exception) -> None:
            await connection.disconnect(nowait=True)

        try:
            if renew:
                await connection.disconnect(nowait=True)
            return await connection.retry.call_with_retry(exchange, failed)  # type: ignore[no-any-return]
        finally:
            await self._pool.release(connection)

    async def _read(self, connection: Any) -> Any:
        # Any other error, and a cancellation, closes the connection: no reply is left for whoever has it next.
        try:
            return await connection.read_response(disable_decoding=True)
        except self._reply_errors as error:
            return error


def _packed(connection: Any, commands: Sequence[Command]) -> list[bytes]:
    if _pack is not None:
        with suppress(TypeError):  # an argument of another kind: the connection converts or refuses it
            return [_pack(command) for command in commands]
    return connection.pack_commands(commands)  # type: ignore[no-any-return]
