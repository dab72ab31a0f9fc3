"""What `bay0 --validate` has done on the disk, in the state worker: written, synced, read back."""

from __future__ import annotations

import os

from bay0.state import files, genesis


def marker(path: str, text: str) -> bool:
    """Write `text` to the file at `path`, sync it, and tell whether the disk gives it back. `OSError` as it comes."""
    data = f"{text}\n".encode()
    fd = files.side_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, data)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # or memory would answer for the disk
        return os.pread(fd, len(data) + 1, 0) == data
    finally:
        os.close(fd)


def log_line(path: str, line: str) -> bool:
    """Append `line` to the genesis log and tell whether it can be read there. `OSError` as it comes."""
    genesis.append(path, [line])
    return line in genesis.tail(path, 5)
