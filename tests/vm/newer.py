"""Newer spines for tests of upgrades: the one that is built, with another identity and another first program, without a whole build.

An initramfs may be followed by another archive, whose files take the place of those before (the kernel's
early-userspace/buffer-format). So stage 0 is replaced; it lays another os-release over the one in the root image, and does what the case wants.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts/lib"))
import mkuki

TOP = Path(__file__).resolve().parents[2]

HERE = 'try "mount the root image"'  # a line of stage 0
BESIDE = '$bb mount --bind /os-release /newroot/etc/os-release || fail "say which build it is"\n'
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
NO_PODMAN = '$bb mount --bind /os-release /newroot/usr/bin/podman || fail "break podman"\n'
HANGS = 'say "hangs now"; while :; do $bb sleep 1000; done\n'
RESETS = "$bb reboot -f\n"
PANICS = "exit 1\n"


def newer(old: str, to: str, version: str, *, stage0: str = "", words: str = "") -> str:
    """Write a UKI of another version to `to`, and return its digest. `stage0`: lines of it behind the mount; `words`: at the end of its own."""
    pe = mkuki.Pe(Path(old).read_bytes())
    parts = {name: pe.content(name) or b"" for name in (".osrel", ".uname", ".cmdline", ".initrd", ".linux")}
    build = hashlib.sha256(f"{version} {stage0} {words}".encode()).hexdigest()[:32]
    said = [line for line in parts[".osrel"].rstrip(b"\0").decode().splitlines() if not line.startswith(("VERSION_ID=", "BUILD_ID="))]
    parts[".osrel"] = "\n".join([*said, f"VERSION_ID={version}", f"BUILD_ID={build}", ""]).encode()
    parts[".cmdline"] = parts[".cmdline"].rstrip(b"\0\n") + f" {words}".rstrip().encode()
    parts[".initrd"] += bytes(-len(parts[".initrd"]) % 4) + _archive(Path(f"{to}.parts"), parts[".osrel"], stage0)
    Path(to).write_bytes(mkuki.join(Path(STUB).read_bytes(), parts))
    return f"sha256:{hashlib.sha256(Path(to).read_bytes()).hexdigest()}"


def _archive(folder: Path, osrel: bytes, stage0: str) -> bytes:
    folder.mkdir()
    lines = (TOP / "scripts/stage0/init").read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(HERE)) + 1
    (folder / "init").write_text("".join([*lines[:at], BESIDE, stage0, *lines[at:]]))
    (folder / "os-release").write_bytes(osrel)
    entries = (f"file:init:0755:{folder}/init", f"file:os-release:0755:{folder}/os-release")
    subprocess.run([sys.executable, str(TOP / "scripts/lib/mkcpio.py"), str(folder / "cpio"), *entries], check=True)
    return (folder / "cpio").read_bytes()
