"""The codec that carries contexts: what it stores, and how it decodes bytes that others stored."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import redisq.asyncio
from redisq import BYTES, JSON, TEXT, CodecError, InvalidArgument
from redisq.telemetry import Carrier
from tests.queues.flavours import Flavour

TRACER = TracerProvider().get_tracer("the application")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADER = b'\0otel{"traceparent":"%s"}\n' % TRACEPARENT.encode()
SPAN = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(1))

PIECES = st.sampled_from([b"\0", b"\0otel", b"{", b"}", b"\n", b"{}\n", b'{"traceparent":', b'"x"', HEADER])
LIKE_HEADERS = st.lists(PIECES | st.binary(max_size=3), max_size=6).map(b"".join)


def carried(raw: bytes) -> SpanContext | None:
    """Return the span that bytes carry."""
    found = Carrier.context(raw)
    return None if found is None else trace.get_current_span(found).get_span_context()


@given(st.binary() | LIKE_HEADERS, st.booleans())
@example(HEADER, False)
@example(HEADER, True)
@example(HEADER + HEADER, True)
@example(b"\0otel{}\n", False)
@example(b"\0otel", False)
def test_any_bytes_are_unchanged_after_a_round_trip(data: bytes, traced: bool) -> None:
    """With and without a span; a span is carried only if it was current."""
    codec = Carrier(BYTES)
    if not traced:
        stored = codec.encode(data)
        assert codec.decode(stored) == data
        assert Carrier.context(stored) is None
        assert stored == data or data.startswith(b"\0otel")  # a prefix is only added where it is needed
        return
    with TRACER.start_as_current_span("push") as span:
        stored = codec.encode(data)
    assert codec.decode(stored) == data
    found = carried(stored)
    assert found is not None
    assert found.span_id == span.get_span_context().span_id


@given(st.binary() | LIKE_HEADERS | LIKE_HEADERS.map(lambda data: b"\0otel{" + data + b"}\n"))
@example(b"\0otel{" + b"[" * 100_000 + b"}\n")
@example(b'\0otel{"traceparent":1}\n')
@example(b'\0otel{"traceparent":"\\ud800"}\n')
@example(b'\0otel{"baggage":"\xff"}\n')
def test_invalid_data_has_no_context(data: bytes) -> None:
    """Decoding never raises, whatever was pushed."""
    found = carried(data)
    assert found is None or found.is_valid is (TRACEPARENT.encode() in data)


def test_the_stored_format_is_as_documented() -> None:
    """So that programs in other languages can write and read it."""
    assert Carrier(JSON).decode(HEADER + b'{"to":"ada"}') == {"to": "ada"}
    assert carried(HEADER + b"1") == SPAN
    with TRACER.start_as_current_span("push"):
        stored = Carrier(JSON).encode({"to": "ada"})
    header, newline, body = stored.partition(b"\n")
    fields = json.loads(header.removeprefix(b"\0otel"))
    assert (header[:6], newline, body) == (b"\0otel{", b"\n", b'{"to":"ada"}')
    assert list(fields) == ["traceparent"]


@pytest.mark.parametrize("stored", [b'{"to":"ada"}', b"\0otel{}\n" + b'{"to":"ada"}'])
def test_items_without_a_context_are_decoded_unchanged(stored: bytes) -> None:
    """From a program without a carrier, or outside of any span."""
    assert Carrier(JSON).decode(stored) == {"to": "ada"}
    assert Carrier.context(stored) is None


def test_each_item_carries_the_context_of_its_push() -> None:
    """The fields of the last context are cached, but not for another span, baggage or propagator."""
    codec = Carrier(TEXT)
    assert codec.encode("x") == b"x"
    for _ in range(2):
        with TRACER.start_as_current_span("one") as one:
            first, again = codec.encode("x"), codec.encode("y")
            with TRACER.start_as_current_span("two") as two:
                inner = codec.encode("x")
            assert codec.encode("x") == first
        for stored, span in ((first, one), (again, one), (inner, two)):
            assert (found := carried(stored))
            assert found.span_id == span.get_span_context().span_id
        assert codec.encode("x") == b"x"
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        stored, before = codec.encode("x"), propagate.get_global_textmap()
        assert (found_context := Carrier.context(stored))
        assert baggage.get_baggage("tenant", found_context) == "acme"
        propagate.set_global_textmap(TraceContextTextMapPropagator())
        try:
            assert codec.encode("x") == b"x"
        finally:
            propagate.set_global_textmap(before)
    finally:
        context.detach(token)


def test_the_last_context_is_not_kept_in_memory() -> None:
    """A span may be large."""
    codec = Carrier(TEXT)
    with TRACER.start_as_current_span("push") as span:
        codec.encode("x")
        last = weakref.ref(span)
    del span
    gc.collect()
    assert last() is None


def test_errors_of_the_inner_codec_name_both_codecs(flavour: Flavour) -> None:
    buffer = flavour.buffer(codec=Carrier(JSON))
    with pytest.raises(CodecError, match=r"Carrier\(JSON\) cannot encode"):
        flavour.do(buffer.push(object()))
    flavour.do(flavour.buffer(codec=BYTES).push(HEADER + b"{"))
    with pytest.raises(CodecError, match=r"Carrier\(JSON\) cannot decode") as raised:
        flavour.do(buffer.pop())
    assert raised.value.raw == [HEADER + b"{"]


def test_member_codecs_cannot_be_carriers(flavour: Flavour) -> None:
    """Members would no longer be unique; the error says what to do instead."""
    with pytest.raises(InvalidArgument, match=r"payload_codec=Carrier\(TEXT\)"):
        flavour.queue(codec=Carrier(TEXT))
    flavour.queue(payload_codec=Carrier(TEXT))


def run_python(code: str) -> str:
    """Return the output of a program."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_without_opentelemetry_the_error_says_what_to_install() -> None:
    """It is an extra that nothing else needs. (redis-py imports it if it is installed.)"""
    program = """
import sys
sys.modules["opentelemetry"] = None
import redisq, redisq.asyncio, redisq.cli
assert "redisq.telemetry" not in sys.modules
try:
    import redisq.telemetry
except ImportError as error:
    print(error)
"""
    assert run_python(program) == "redisq.telemetry needs opentelemetry-api: pip install 'redisq-lua[otel]'\n"


def test_types() -> None:
    """A carrier has the type of its inner codec."""

    def decoded(codec: redisq.Codec[str]) -> str:
        return codec.decode(b"x")

    texts: Carrier[str] = Carrier(TEXT)
    assert decoded(texts) == "x"
    carrier: Any = texts
    assert repr(carrier) == "Carrier(TEXT)"
