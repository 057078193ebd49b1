"""Operations in several steps, as generators: what is to be sent or waited for, without doing it.

A flow yields a `Call` and is sent its result, a `Pipeline` and is sent the results of all its calls, or a `Block` or a
`Sleep` and is sent nothing. The runner of either flavour performs it, so each operation is defined once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .calls import Call
from .errors import CodecError, LeaseLost

R = TypeVar("R")
S = TypeVar("S")

POLL = 1.0
"""seconds between two looks where a proxy refuses BLPOP"""
OVERDUE = 5.0
"""seconds after which a wait without an answer has lost its connection"""


@dataclass(slots=True)
class Pipeline:
    """Several calls in one round trip; `LeaseLost` and `CodecError` stand in the place of a result."""

    calls: list[Call[Any]]
    return_exceptions: bool = False
    """Whether any other error of one call does as well."""


@dataclass(slots=True)
class Block:
    """A wait for a wake-up in a list, of so many seconds at most; it may end earlier."""

    key: bytes
    seconds: float


@dataclass(slots=True)
class Sleep:
    """A wait of so many seconds."""

    seconds: float


Flow = Generator[Call[Any] | Pipeline | Block | Sleep, Any, R]
"""An operation in several steps: yields them, is sent their results, returns its own."""

Operation = Call[R] | Flow[R]
"""An operation, in one call or in several steps."""


def mapped(operation: Operation[R], read: Callable[[R], S]) -> Flow[S]:
    """Make of an operation's result what the queue's own method returns."""
    result: R = (yield operation) if isinstance(operation, Call) else (yield from operation)
    return read(result)


def together(operations: Sequence[Operation[Any]], most: int) -> Flow[list[Any]]:
    """Perform operations that only call, `most` of them at a time, in as few round trips as the longest one needs.

    Returns the result or the error of each.
    """
    found: list[Any] = []
    for start in range(0, len(operations), most):
        flows = [mapped(operation, _same) for operation in operations[start : start + most]]
        ended: list[Any] = [None] * len(flows)
        replies: dict[int, Any] = dict.fromkeys(range(len(flows)))
        while replies:
            calls: dict[int, Any] = {}
            for place, reply in replies.items():
                try:
                    if isinstance(reply, Exception):
                        raise reply
                    calls[place] = flows[place].send(reply)
                except StopIteration as stop:
                    ended[place] = stop.value
                except Exception as error:
                    ended[place] = error
            answers = (yield Pipeline(list(calls.values()), return_exceptions=True)) if calls else []
            replies = dict(zip(calls, answers, strict=True))
        found += ended
    return found


def _same(result: R) -> R:
    return result


def results(calls: Sequence[Call[Any]], replies: Sequence[Any], return_exceptions: bool = False) -> list[Any]:
    """Read the replies to several calls; `LeaseLost` or `CodecError` for one is a result, for the others count.

    With `return_exceptions` any other error is one as well.
    """

    def result(call: Call[Any], reply: Any) -> Any:
        try:
            return call.decode(reply)
        except (LeaseLost, CodecError) as error:
            return error
        except Exception as error:
            if return_exceptions:
                return error
            raise

    return [result(call, reply) for call, reply in zip(calls, replies, strict=True)]


def block_seconds(seconds: float, socket_timeout: float | None) -> float:
    """Return how long to block in one read: well under the socket timeout, at which the client gives the read up.

    At most 2.5 seconds even without one, so that what no wake-up tells of, such as a lease that another worker let run
    out, is seen soon; with the call that follows, that is less than one command a second. At least 2 ms: Redis 6.2 cuts
    what it reads to whole ms, and 0.001 may become 0, which means forever.
    """
    return max(0.002, min(seconds, socket_timeout / 2 if socket_timeout else 2.5, 2.5))
