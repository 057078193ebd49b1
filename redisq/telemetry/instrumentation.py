"""What has queues and workers record their operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Any, TypeAlias
from weakref import WeakSet

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .. import asyncio, blocking
from ..core.batch import BatchData
from ..core.errors import InvalidArgument
from .attributes import Attributes, clean
from .operations import Counted, Operation, Process, Push, Receive, Settle
from .recorder import Recorder
from .settlements import Settlements

AnyQueue: TypeAlias = (
    blocking.Buffer[Any] | blocking.PriorityQueue[Any] | asyncio.Buffer[Any] | asyncio.PriorityQueue[Any]
)
AnyWorker: TypeAlias = blocking.Worker[Any] | asyncio.Worker[Any]
_QUEUES = blocking.Buffer, blocking.PriorityQueue, asyncio.Buffer, asyncio.PriorityQueue
_WORKERS = blocking.Worker, asyncio.Worker

_instrumented: WeakSet[Any] = WeakSet()


def instrument(
    *queues_or_workers: AnyQueue | AnyWorker,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Have these queues and workers, and the queues of the workers, make spans and metrics of what they do.

    Their calls take, return and raise what they did before. The providers are the global ones unless others are given.
    What is instrumented already stays as it is. Instrument a worker before it runs, and give it no other `handler`
    afterwards. Raises `InvalidArgument` for anything else, before any is instrumented.
    """
    for one in queues_or_workers:
        if not isinstance(one, (*_QUEUES, *_WORKERS)):
            raise InvalidArgument(f"{one!r} is not a queue or a worker: give a Buffer, a PriorityQueue or a Worker")
    for one in queues_or_workers:
        queue = one.queue if isinstance(one, _WORKERS) else one
        recorder = Recorder(queue, tracer_provider, meter_provider)
        if queue not in _instrumented:
            _instrumented.add(queue)
            _instrument_queue(queue, recorder)
        if isinstance(one, _WORKERS) and one not in _instrumented:
            _instrumented.add(one)
            _instrument_worker(one, recorder)


# -- queues


def _instrument_queue(queue: AnyQueue, recorder: Recorder) -> None:
    if isinstance(queue, (blocking.Buffer, asyncio.Buffer)):
        makers: dict[str, Any] = {"push": _buffer_push, "push_front": _buffer_push, "push_many": _buffer_push_many}
        receiving = ("reserve", "reserve_many", "pop", "pop_longest")
    else:
        makers = {"push": _priority_push, "push_many": _priority_push_many}
        receiving = ("reserve", "reserve_many", "pop", "pop_many")
    makers |= dict.fromkeys(receiving, Receive) | dict.fromkeys(("ack", "release", "bury"), Settle)
    for name, make in makers.items():
        verb = name.removesuffix("_many")
        # On the object, where the methods of its batches and `batches` find it; types and editors see the class.
        setattr(queue, name, _recorded(getattr(queue, name), partial(make, recorder, verb)))
    queue.reserve = _acking_apart(queue, queue.reserve)  # type: ignore[method-assign]


def _recorded(method: Any, make: Callable[[tuple[Any, ...], dict[str, Any]], Operation]) -> Any:
    """Return a function that calls a method while an operation is recorded."""
    if iscoroutinefunction(method):

        @wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with make(args, kwargs) as operation:
                operation.result = await method(*operation.args, **operation.kwargs)
            return operation.result

        return call_async

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with make(args, kwargs) as operation:
            operation.result = method(*operation.args, **operation.kwargs)
        return operation.result

    return call


def _acking_apart(queue: Any, reserve: Any) -> Any:
    """Return a reserve that acks in a round trip of its own: each has a span, and no ack lasts as long as a wait."""
    if iscoroutinefunction(reserve):

        @wraps(reserve)
        async def reserve_async(*args: Any, ack: BatchData[Any] | None = None, **kwargs: Any) -> Any:
            if ack is not None:
                await queue.ack(ack)
            return await reserve(*args, **kwargs)

        return reserve_async

    @wraps(reserve)
    def reserve_blocking(*args: Any, ack: BatchData[Any] | None = None, **kwargs: Any) -> Any:
        if ack is not None:
            queue.ack(ack)
        return reserve(*args, **kwargs)

    return reserve_blocking


def _buffer_push(recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Push:
    group = _group(kwargs.get("group", "default"))
    return Push(recorder, verb, args, kwargs, {"messaging.batch.message_count": len(args), **group})


def _buffer_push_many(recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Push:
    group = args[1] if len(args) > 1 else kwargs.get("group", "default")
    return _push_many(Push(recorder, verb, args, kwargs, _group(group)), "items")


def _priority_push(recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Push:
    return Push(recorder, verb, args, kwargs, {})


def _priority_push_many(recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Push:
    return _push_many(Push(recorder, verb, args, kwargs, {}), "members")


def _push_many(push: Push, name: str) -> Push:
    given = push.args[0] if push.args else push.kwargs.get(name)
    if given is None or isinstance(given, (str, bytes)):  # to be refused
        return push
    push.many = Counted(given.items() if isinstance(given, Mapping) else given)
    if push.args:
        push.args = push.many, *push.args[1:]
    else:
        push.kwargs = push.kwargs | {name: push.many}
    return push


def _group(group: Any) -> Attributes:
    return {"messaging.redisq.group": clean(group)} if isinstance(group, str) else {}


# -- workers


def _instrument_worker(worker: Any, recorder: Recorder) -> None:
    parents: dict[str, Context] = {}
    worker.handler = _processing(isinstance(worker, asyncio.Worker), worker.handler, recorder, parents)
    worker.observers.append(Settlements(recorder, parents))


def _processing(awaited: bool, handler: Any, recorder: Recorder, parents: dict[str, Context]) -> Any:
    """Return a handler that is recorded; what follows it finds the context of its span in `parents`."""

    def begun(batch: BatchData[Any]) -> Process:
        return Process(recorder, batch, parents)

    if awaited:

        @wraps(handler)
        async def handle_async(batch: Any) -> Any:
            with begun(batch):
                return await handler(batch)

        return handle_async

    @wraps(handler)
    def handle(batch: Any) -> Any:
        with begun(batch):
            return handler(batch)

    return handle
