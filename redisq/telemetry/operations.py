"""The calls of a queue and of a handler, and what is recorded of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import perf_counter, time_ns
from typing import Any, ClassVar

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link

from ..core.batch import BatchData
from ..core.errors import CodecError, InvalidArgument, Retry
from .attributes import Attributes, batch_attributes, clean, received
from .carrier import decoded_fields
from .links import batch_links, links_to
from .recorder import Recorder, error_type, fail


class Operation(ABC):
    """One call of a queue, or of a handler: `with operation: operation.result = method(*args, **kwargs)`."""

    kind: ClassVar[str]

    def __init__(self, recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.recorder = recorder
        self.verb = verb
        self.args = args
        """What to call the method with."""
        self.kwargs = kwargs
        self.result: Any = None

    def __enter__(self) -> Operation:
        self.begin()
        self._began = perf_counter()
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        self.end(perf_counter() - self._began, error)

    @abstractmethod
    def begin(self) -> None:
        """Take in that the call begins."""

    @abstractmethod
    def end(self, seconds: float, error: BaseException | None) -> None:
        """Take in that the call has returned, or what it has raised."""


class _CurrentSpan(Operation):
    """An operation whose span is the current one while it is under way."""

    root: ClassVar[bool] = False
    """Whether the span begins a trace."""
    context: Context
    """In which the span is current."""

    def attributes(self) -> Attributes:
        """Return what is known of it before it begins."""
        return {}

    def links(self) -> Sequence[Link]:
        """Return what its span is linked to."""
        return ()

    def begin(self) -> None:
        parent = Context() if self.root else None
        self.span = self.recorder.start(self.verb, self.kind, self.attributes(), self.links(), context=parent)
        self.context = trace.set_span_in_context(self.span)
        self._token = current.attach(self.context)

    def end(self, seconds: float, error: BaseException | None) -> None:
        current.detach(self._token)
        if error is not None:
            fail(self.span, error)
        self.recorder.took(self.verb, self.kind, seconds, error_type(error))
        self.span.end()


class Push(_CurrentSpan):
    """A push: its span is current while the items are encoded, so that a `Carrier` carries its context."""

    kind = "send"

    def __init__(
        self, recorder: Recorder, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], attributes: Attributes
    ) -> None:
        super().__init__(recorder, verb, args, kwargs)
        self._attributes = attributes
        self.many: Counted | None = None
        """What is pushed, where that is known only when it has been read."""

    def attributes(self) -> Attributes:
        return self._attributes

    def end(self, seconds: float, error: BaseException | None) -> None:
        count = self._attributes.get("messaging.batch.message_count", 1)
        if self.many is not None:
            count = self.many.count
            self.span.set_attribute("messaging.batch.message_count", count)
        # These are raised before anything is sent. Of many, what was read before is counted, whether sent or not.
        if self.many is not None or not isinstance(error, (CodecError, InvalidArgument, TypeError)):
            self.recorder.sent(self.verb, count, error_type(error))
        super().end(seconds, error)


class Settle(_CurrentSpan):
    """An ack, a release or a burial of batches."""

    kind = "settle"

    def attributes(self) -> Attributes:
        return batch_attributes([batch for batch in self.args if isinstance(batch, BatchData)])


class Process(_CurrentSpan):
    """A handler at work on a batch. Its span begins a trace, linked to the spans that pushed the items.

    It may not be a child of them all, and not of what is current where the worker was started either: that may last for
    days.
    """

    kind = "process"
    root = True

    def __init__(self, recorder: Recorder, batch: BatchData[Any], parents: dict[str, Context]) -> None:
        super().__init__(recorder, "process", (batch,), {})
        self._batch = batch
        self._parents = parents

    def attributes(self) -> Attributes:
        return batch_attributes([self._batch])

    def links(self) -> Sequence[Link]:
        return batch_links(self._batch)

    def begin(self) -> None:
        super().begin()
        self._parents[self._batch.id] = self.context

    def end(self, seconds: float, error: BaseException | None) -> None:
        if isinstance(error, Retry):  # an answer of the handler, not an error
            given = {"delay": error.delay, "count": error.count, "reason": error.reason and clean(error.reason)}
            known = {f"messaging.redisq.{name}": value for name, value in given.items() if value is not None}
            self.span.add_event("retry", known)
            error = None
        super().end(seconds, error)


class Receive(Operation):
    """A reserve or a pop: there is a span only when it has handed something out, or has failed, so none for each poll.

    One that is cancelled while it waits has neither.
    """

    kind = "receive"

    def begin(self) -> None:
        self._start_time = time_ns()
        self._fields: dict[bytes, None] = {}
        self._token = decoded_fields.set(self._fields)

    def end(self, seconds: float, error: BaseException | None) -> None:
        decoded_fields.reset(self._token)
        if not (self.result or isinstance(error, Exception)):
            return
        count, attributes = received(self.result)
        span = self.recorder.start(
            self.verb, self.kind, attributes, links_to(self._fields), start_time=self._start_time
        )
        if error is not None:
            fail(span, error)
        else:
            self.recorder.consumed(self.verb, self.kind, count)
        self.recorder.took(self.verb, self.kind, seconds, error_type(error))
        span.end()


class Counted:
    """An iterable that counts what is read of it; iterating over it fails as it would without."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Any:
        return map(self._note, self._items)

    def __repr__(self) -> str:
        return repr(self._items)  # as an error would show it without

    def _note(self, item: Any) -> Any:
        self.count += 1
        return item
