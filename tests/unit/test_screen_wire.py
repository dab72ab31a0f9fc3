"""Wayland messages and sway's IPC frames, as bytes: what is sent can be read, and what makes no sense is refused."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.screen import ipc, registry, wire
from bay0.screen.ipc import Ask
from bay0.screen.wire import Arguments, Message, WireError

WORD = struct.Struct("=I")
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=60)


def in_pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


# ---- Wayland


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), texts), max_size=5),
       st.lists(st.integers(0, 30), max_size=20))  # fmt: skip
def test_messages_come_whole_however_they_are_cut(sent: list[tuple[int, int, int, str]], sizes: list[int]) -> None:
    data = b"".join(wire.request(target, opcode, wire.words(number) + wire.string(text)) for target, opcode, number, text in sent)
    reader, found = wire.Reader(), []
    for piece in in_pieces(data, sizes):
        for message in reader.feed(piece):
            arguments = Arguments(message.body)
            found.append((message.sender, message.opcode, arguments.uint(), arguments.string()))
            arguments.end()
    assert found == sent


@pytest.mark.parametrize("size", [0, 4, 7, 9, 4100, 0xFFFC])
def test_a_message_whose_size_makes_no_sense_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        list(wire.Reader().feed(struct.pack("=II", 2, size << 16)))


def test_a_message_that_has_not_come_whole_is_waited_for() -> None:
    whole = wire.request(2, 0, wire.words(7))
    reader = wire.Reader()
    assert list(reader.feed(whole[:-1])) == []
    assert list(reader.feed(whole[-1:])) == [Message(2, 0, wire.words(7))]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x01\x00", WORD.pack(0), WORD.pack(5) + b"abcd", WORD.pack(0xFFFFFFFF) + b"abcd", WORD.pack(4) + b"abcd",
        WORD.pack(4) + b"a\0b\0", WORD.pack(3) + b"\xff\xff\0\0", WORD.pack(2) + b"a\0",
    ],
    ids=["nothing", "half a word", "null", "short", "huge", "no NUL", "NUL within", "no text", "no padding"],
)  # fmt: skip
def test_a_string_that_is_not_whole_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        Arguments(body).string()


def test_arguments_too_few_or_too_many_are_refused() -> None:
    with pytest.raises(WireError):
        Arguments(b"").uint()
    with pytest.raises(WireError):
        Arguments(b"four").end()


def test_what_cannot_be_sent_is_refused_before_it_is() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wire.string("a\0b")
    with pytest.raises(ValueError, match="4096"):
        wire.request(1, 0, bytes(4096))


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        for message in wire.Reader().feed(data):
            assert len(message.body) <= wire.SIZE_MAX
    except WireError:
        pass


# ---- sway's IPC


@given(st.lists(st.tuples(st.sampled_from(Ask), texts), max_size=5), st.lists(st.integers(0, 30), max_size=20))
def test_frames_come_whole_however_they_are_cut(sent: list[tuple[Ask, str]], sizes: list[int]) -> None:
    data = b"".join(ipc.frame(kind, json.dumps(text)) for kind, text in sent)
    reader, found = ipc.Reader(), []
    for piece in in_pieces(data, sizes):
        found += [(frame.kind, frame.value()) for frame in reader.feed(piece)]
    assert found == sent


def test_an_event_is_told_from_an_answer() -> None:
    (frame,) = ipc.Reader().feed(ipc.HEAD.pack(ipc.MAGIC, 2, ipc.EVENT | ipc.Event.BINDING) + b"{}")
    assert (frame.event, frame.kind) == (True, ipc.Event.BINDING)


@pytest.mark.parametrize("data", [b"x", b"i3-ipx", b"HTTP/1.1 200 OK\r\n"])
def test_what_does_not_begin_as_a_frame_is_refused_at_its_first_wrong_byte(data: bytes) -> None:
    with pytest.raises(ipc.FrameError, match="begin"):
        list(ipc.Reader().feed(data))


def test_a_frame_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(ipc.FrameError, match="at most"):
        list(ipc.Reader().feed(ipc.HEAD.pack(ipc.MAGIC, ipc.PAYLOAD_MAX + 1, Ask.GET_TREE)))
    with pytest.raises(ValueError, match="at most"):
        ipc.frame(Ask.RUN_COMMAND, "x" * (ipc.PAYLOAD_MAX + 1))


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "half", "no text", "deep"])
def test_a_payload_that_is_no_json_is_refused(payload: bytes) -> None:
    (frame,) = ipc.Reader().feed(ipc.HEAD.pack(ipc.MAGIC, len(payload), Ask.GET_TREE) + payload)
    with pytest.raises(ipc.FrameError, match="no JSON"):
        frame.value()


# ---- the registry


OFFERED = dict(enumerate(sorted(registry.ALLOWED), 1))


def test_just_what_is_allowed_is_no_fault_with_several_outputs_or_none() -> None:
    assert registry.fault(OFFERED) == ""
    assert registry.fault({**OFFERED, 90: "wl_output", 91: "wl_seat"}) == ""
    assert registry.fault({number: name for number, name in OFFERED.items() if name != "wl_output"}) == ""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("zwp_linux_dmabuf_v1", "it offers zwp_linux_dmabuf_v1: a persona's own buffer"), ("wp_drm_lease_device_v1", "not allowed: wp_drm_lease"),
        ("wl_shm", "twice: wl_shm"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_a_fault(more: str, said: str) -> None:
    assert said in registry.fault({**OFFERED, 99: more})


@pytest.mark.parametrize("name", sorted(registry.ALLOWED - registry.SEVERAL))
def test_a_compositor_that_lacks_any_of_it_is_another_one(name: str) -> None:
    assert registry.fault({number: each for number, each in OFFERED.items() if each != name}) == f"it does not offer {name}"
