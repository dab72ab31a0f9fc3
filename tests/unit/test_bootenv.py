"""The boot environment's file: written, read back, refused when damaged.

That EFI Boot Guard's own tools agree is in test_bootenv_tools.py.
"""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bay0.base.errors import BootEnvError
from bay0.state import bootenv
from bay0.state.bootenv import BootEnv, UState

GOOD = BootEnv(kernel=bootenv.kernel_of("SLOTA"), ustate=UState.OK, revision=7)
TEXTS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=120
)  # of two units each at most
ENVIRONMENTS = st.builds(
    BootEnv, TEXTS, TEXTS, st.booleans(), st.sampled_from(UState), st.integers(0, bootenv.WATCHDOG_MAX), st.integers(0, bootenv.REVISION_MAX),
    st.binary(max_size=300).map(lambda data: data.rstrip(b"\0")),
)  # fmt: skip


def sealed(body: bytes) -> bytes:
    """Return a file with these bytes and the CRC that belongs to them."""
    return body + struct.pack("<I", zlib.crc32(body))


def changed(at: int, new: bytes, env: BootEnv = GOOD) -> bytes:
    """Return an environment with some bytes changed, and a good CRC all the same."""
    body = bytearray(bootenv.encode(env)[:-4])
    body[at : at + len(new)] = new
    return sealed(bytes(body))


@given(ENVIRONMENTS)
def test_what_is_written_is_read_back_and_is_always_of_one_size(env: BootEnv):
    data = bootenv.encode(env)
    assert len(data) == bootenv.SIZE == 132104
    assert bootenv.parse(data) == env


def test_every_field_stands_where_the_loader_reads_it():
    data = bootenv.encode(
        BootEnv("C:SLOTB:spine.efi", "quiet", True, UState.TESTING, 0x0196, 0x01020304, b"mine")
    )
    assert data[:34] == "C:SLOTB:spine.efi".encode("utf-16-le")
    assert data[34:510] == bytes(476)
    assert data[510:520] == "quiet".encode("utf-16-le")
    assert data[1020:1028] == bytes([1, 2, 0x96, 0x01, 4, 3, 2, 1])
    assert data[1028:1032] == b"mine"
    assert data[-4:] == struct.pack("<I", zlib.crc32(data[:-4]))


def test_an_environment_of_which_only_the_kernel_is_said_is_never_chosen():
    env = bootenv.parse(bootenv.encode(BootEnv(bootenv.kernel_of("SLOTB"))))
    assert (env.ustate, env.revision, env.watchdog_s) == (UState.FAILED, 0, 0)
    assert bootenv.newest([env, env]) is None


@given(st.integers(0, 8 * bootenv.SIZE - 1))
def test_one_bit_that_is_not_as_it_was_written_is_found_wherever_it_is(bit: int):
    data = bytearray(bootenv.encode(GOOD))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BootEnvError, match="is damaged: its CRC is"):
        bootenv.parse(bytes(data))


@given(st.binary(max_size=3000))
def test_any_other_bytes_are_refused_and_never_a_surprise(data: bytes):
    with pytest.raises(BootEnvError):
        bootenv.parse(data)
    with pytest.raises(BootEnvError):
        bootenv.parse((data + bytes(bootenv.SIZE))[: bootenv.SIZE - 1] + b"\1")


@given(st.binary(max_size=1030), st.integers(0, 1030))
def test_bytes_with_a_good_crc_are_an_environment_or_are_refused(new: bytes, at: int):
    try:
        env = bootenv.parse(changed(at, new))
    except BootEnvError:
        return
    assert bootenv.parse(bootenv.encode(env)) == env


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is 0 bytes long, and not 132104"),
        (bootenv.encode(GOOD)[:-1], "is 132103 bytes long"),
        (bootenv.encode(GOOD) + b"\0", "is 132105 bytes long"),
        (bytes(bootenv.SIZE), "is damaged"),  # zeros: their CRC is not zero
        (changed(1020, b"\2"), "in_progress is 2, and neither 0 nor 1"),
        (changed(1021, b"\4"), "state is 4, which nobody knows"),
        (changed(0, "k".encode("utf-16-le") * 255), "kernel do not end"),
        (changed(510, b"\x00\xd8"), "parameters are no text"),
    ],
)
def test_what_is_damaged_is_refused_with_the_reason(data: bytes, why: str):
    with pytest.raises(BootEnvError, match=why):
        bootenv.parse(data)


def test_what_an_earlier_longer_text_left_behind_the_end_is_no_part_of_a_text():
    assert bootenv.parse(changed(2 * len(GOOD.kernel) + 2, b"old", GOOD)).kernel == GOOD.kernel


@pytest.mark.parametrize(
    ("env", "why"),
    [
        (GOOD._replace(kernel="k" * 255), "at most 254 characters"),
        (GOOD._replace(params="\U0001f600" * 128), "at most 254 characters"),  # two units each
        (GOOD._replace(params="a\0b"), "without a zero"),
        (GOOD._replace(kernel="\ud800"), "cannot be"),
        (GOOD._replace(watchdog_s=65536), "watchdog's seconds: 0 to 65535"),
        (GOOD._replace(revision=-1), "revision: 0 to"),
        (GOOD._replace(revision=1 << 32), "revision: 0 to"),
        (GOOD._replace(userdata=bytes(131073)), "131072 bytes for variables"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_are_bytes(env: BootEnv, why: str):
    with pytest.raises(BootEnvError, match=why):
        bootenv.encode(env)


def test_the_newest_slot_is_the_valid_one_with_the_highest_revision():
    older, failed = GOOD._replace(revision=6), GOOD._replace(revision=0)
    assert bootenv.newest([GOOD, older]) == 0
    assert bootenv.newest([older, GOOD]) == 1
    assert bootenv.newest([None, older]) == 1
    assert bootenv.newest([GOOD, GOOD]) == 0
    assert bootenv.newest([failed, None]) is None
    assert bootenv.newest([]) is None
