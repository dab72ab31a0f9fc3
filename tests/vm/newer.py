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
BESIDE = """$bb mount --bind /os-release /newroot/etc/os-release || fail "say which build it is"
$bb mount -o remount,bind,ro /newroot/etc/os-release || fail "have it as the rest of the root is"
"""
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
UNUSED = b"nobody reads this"  # a place in it where a bit may flip, and all runs as before
NO_PODMAN = '$bb mount --bind /os-release /newroot/usr/bin/podman || fail "break podman"\n'
HANGS = 'say "hangs now"; while :; do $bb sleep 1000; done\n'
RESETS = "$bb reboot -f\n"
PANICS = "exit 1\n"
NOTHING_TO_START = "panic=0 rdinit=/nothing init=/nothing root=/dev/nothing"  # words: it stays in its panic
# by a program in the root of all groups bay0 is frozen as soon as it has a group of its own: as if it hung
FREEZES = """$bb chroot /newroot /bin/sh -c '
    until [ -e /sys/fs/cgroup/init/cgroup.freeze ]; do sleep 0.2; done
    echo 1 >/sys/fs/cgroup/init/cgroup.freeze' &
"""


def newer(
    old: str, to: str, version: str, *, stage0: str = "", words: str = "", key: tuple[str, str] | None = None
) -> str:
    """Write a UKI of another version to `to`, and return its digest.

    `stage0`: lines of it behind the mount; `words`: at the end of its own; `key`: sign it (key, certificate).
    """
    pe = mkuki.Pe(Path(old).read_bytes())
    parts = {name: pe.content(name) or b"" for name in (".osrel", ".uname", ".cmdline", ".initrd", ".linux")}
    build = hashlib.sha256(f"{version} {stage0} {words}".encode()).hexdigest()[:32]
    said = [line for line in parts[".osrel"].rstrip(b"\0").decode().splitlines() if not line.startswith(("VERSION_ID=", "BUILD_ID="))]
    parts[".osrel"] = "\n".join([*said, f"VERSION_ID={version}", f"BUILD_ID={build}", ""]).encode()
    parts[".cmdline"] = parts[".cmdline"].rstrip(b"\0\n") + f" {words}".rstrip().encode()
    parts[".initrd"] += bytes(-len(parts[".initrd"]) % 4) + _archive(Path(f"{to}.parts"), parts[".osrel"], stage0)
    Path(to).write_bytes(mkuki.join(Path(STUB).read_bytes(), parts))
    if key:
        sign = ["sbsign", "--key", key[0], "--cert", key[1], "--output", to, to]
        subprocess.run(sign, check=True, stderr=subprocess.DEVNULL)
    return f"sha256:{hashlib.sha256(Path(to).read_bytes()).hexdigest()}"


def _archive(folder: Path, osrel: bytes, stage0: str) -> bytes:
    folder.mkdir()
    lines = (TOP / "scripts/stage0/init").read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(HERE)) + 1
    (folder / "init").write_text("".join([*lines[:at], BESIDE, stage0, *lines[at:]]))
    (folder / "os-release").write_bytes(osrel)
    (folder / "unused").write_bytes(UNUSED)
    modes = {"init": "0755", "os-release": "0644", "unused": "0644"}
    entries = [f"file:{name}:{mode}:{folder}/{name}" for name, mode in modes.items()]
    subprocess.run([sys.executable, str(TOP / "scripts/lib/mkcpio.py"), str(folder / "cpio"), *entries], check=True)
    return (folder / "cpio").read_bytes()
