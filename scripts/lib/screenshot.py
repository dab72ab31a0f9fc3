#!/usr/bin/env python3
"""Take a picture of a QEMU guest's screen.

Usage: screenshot.py QMP_SOCKET FILE

FILE ends in .png or .ppm. QEMU writes PPM (its own PNG needs a library that not every build has), which
becomes PNG here. Status 1 with one line if there is no picture.
"""

import contextlib
import json
import os
import re
import socket
import struct
import sys
import tempfile
import time
import zlib

WAIT_S = 10.0


def command(stream: socket.socket, name: str, **arguments: object) -> None:
    """Give one QMP command and await its answer, events passed over.

    `OSError` if it is refused or there is none.
    """
    stream.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
    held = b""
    while True:
        data = stream.recv(1 << 16)
        if not data:
            raise OSError("QEMU hung up")
        *lines, held = (held + data).split(b"\n")
        for answer in map(json.loads, filter(None, lines)):
            if "error" in answer:
                raise OSError(f"QEMU does not {name}: {answer['error']['desc']}")
            if "return" in answer:
                return


def dump(path: str, target: str) -> None:
    """Have the guest's screen written to `target` as PPM. `OSError` if that cannot be had within `WAIT_S`."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(WAIT_S)
        end = time.monotonic() + WAIT_S
        while stream.connect_ex(path):
            if time.monotonic() > end:
                raise OSError(f"nobody answers at {path}")
            time.sleep(0.1)
        command(stream, "qmp_capabilities")
        command(stream, "screendump", filename=target)


def pixels(ppm: bytes) -> tuple[int, int, bytes]:
    """Return width, height and the bytes of a PPM (P6, 8 bits), three a pixel. `ValueError`: it is none."""
    head = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", ppm)
    if head is None:
        raise ValueError("QEMU wrote no PPM")
    width, height, body = int(head[1]), int(head[2]), ppm[head.end() :]
    if len(body) != 3 * width * height:
        raise ValueError("QEMU's PPM is not whole")
    return width, height, body


def png(ppm: bytes) -> bytes:
    """Return a PPM as PNG (RFC 2083): no filter, no interlace."""
    width, height, body = pixels(ppm)
    rows = b"".join(b"\0" + body[at : at + 3 * width] for at in range(0, len(body), 3 * width))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def main(arguments: list[str]) -> int:
    """Take it; return the exit status."""
    if len(arguments) != 2 or arguments[0].startswith("-"):  # noqa: PLR2004
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    path, target = arguments
    raw = tempfile.mkstemp(suffix=".ppm")[1]
    try:
        dump(path, raw)
        with open(raw, "rb") as file:
            ppm = file.read()
        picture = ppm if target.endswith(".ppm") else png(ppm)
        with open(target, "wb") as file:
            file.write(picture)
    except (OSError, ValueError) as error:
        print(f"screenshot.py: no picture: {error}", file=sys.stderr)
        return 1
    finally:
        with contextlib.suppress(OSError):
            os.unlink(raw)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
