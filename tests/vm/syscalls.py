"""Programs of one system call each, for guests without a compiler: x86-64 machine code in the smallest ELF file (elf(5), syscall(2)).

What came of the call is the program's exit status: 0, or the errno.
"""

from __future__ import annotations

import base64
import struct

LOADED_AT = 0x400000
HEADERS = 64 + 56
# cmp rax, -4095; jae failed; xor edi, edi; jmp end; failed: neg eax; mov edi, eax; end: mov eax, 60 (exit); syscall
ENDING = bytes.fromhex("483d01f0ffff 7304 31ff eb04 f7d8 89c7 b83c000000 0f05")
REGISTERS = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8")  # mov rdi, rsi, rdx, r10, r8


def program(number: int, *arguments: int) -> bytes:
    """Return the file. It uses no stack, so a thread that it makes may share its own."""
    moves = b"".join(move + struct.pack("<Q", each % (1 << 64)) for move, each in zip(REGISTERS, arguments, strict=False))
    code = moves + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05" + ENDING
    size = HEADERS + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOADED_AT + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, LOADED_AT, LOADED_AT, size, size, 4096) + code


def script(folder: str, programs: dict[str, bytes]) -> str:
    """Return shell commands that write the programs into a folder."""
    lines = [f"echo {base64.b64encode(data).decode()} | base64 -d >{folder}/{name}" for name, data in programs.items()]
    return "; ".join([*lines, f"chmod 755 {' '.join(f'{folder}/{name}' for name in programs)}"])
