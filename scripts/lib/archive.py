"""Container images as files whose bytes depend on their contents alone: what mkimage.py, mkai.sh and mkask.sh share.

The format is the one of `docker save`, which podman loads: manifest.json, the configuration and the layers, uncompressed.
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Entry:
    """One name in a layer: a directory, or a file's bytes, or a link's target."""

    kind: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    data: bytes = b""


def sha256(data: bytes) -> str:
    """Return the hex digest by which a layer or configuration is known."""
    return hashlib.sha256(data).hexdigest()


def tree(top: Path) -> dict[str, Entry]:
    """Return a directory as entries of root's; a mode is 755 or 644 by its x bit, so nothing is setuid or writable for others.

    Raises SystemExit for a device, pipe or socket.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(top.rglob("*")):
        name, mode = str(path.relative_to(top)), path.lstat().st_mode
        if stat.S_ISLNK(mode):
            entries[name] = Entry(tarfile.SYMTYPE, 0o777, data=os.readlink(path).encode())
        elif stat.S_ISDIR(mode):
            entries[name] = Entry(tarfile.DIRTYPE, 0o755)
        elif stat.S_ISREG(mode):
            entries[name] = Entry(tarfile.REGTYPE, 0o755 if mode & 0o111 else 0o644, data=path.read_bytes())
        else:
            raise SystemExit(f"archive.py: {path} is no file, directory or link: an image cannot hold it")
    return entries


def pack(entries: dict[str, Entry], epoch: int) -> bytes:
    """Return a tar of these entries, parents first."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(filter(None, entries)):
            entry = entries[name]
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.gid, info.mtime = entry.kind, entry.mode, entry.uid, entry.gid, epoch
            if entry.kind == tarfile.SYMTYPE:
                info.linkname = entry.data.decode()
            else:
                info.size = len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def archive(layers: dict[str, bytes], name: str, epoch: int, config: dict[str, Any] | None = None, maker: str = "mkimage.py") -> dict[str, Entry]:
    """Return the members of a docker-archive: layers by what they hold (a comment), the lowest first; `config` as the OCI calls it."""
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    digests = [sha256(layer) for layer in layers.values()]
    described = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": config or {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": created, "created_by": f"scripts/lib/{maker}", "comment": comment} for comment in layers],
    }
    text = json.dumps(described, sort_keys=True).encode()
    members = {f"{sha256(text)}.json": text} | {f"{digest}.tar": layer for digest, layer in zip(digests, layers.values(), strict=True)}
    manifest = [{"Config": f"{sha256(text)}.json", "RepoTags": [name], "Layers": [f"{digest}.tar" for digest in digests]}]
    members["manifest.json"] = json.dumps(manifest, sort_keys=True).encode()
    return {name: Entry(tarfile.REGTYPE, 0o644, data=data) for name, data in members.items()}
