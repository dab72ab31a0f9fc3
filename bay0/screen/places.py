"""Where seat and compositor are, who they are, and the words that start them."""

from __future__ import annotations

from attrs import field, frozen

SEAT, COMPOSITOR = "sys://seat", "sys://compositor"
USER, UID, GID = "seat", 100, 100  # of the image's /etc/passwd: the compositor's user
RUN = "/run/compositor"
DOORS = "/run/bay0/screen"  # the personas' ways to it: root's
SEATD = "/run/seatd.sock"
CTRL_ALT_DEL = "nop bay0 ctrl-alt-del"

MEMORY_MAX = (
    256 << 20
)  # bytes: the compositor's own 5 MB, two pictures of a large screen, its bar's and background's
COMPOSITOR_LIMITS = {"memory.max": str(MEMORY_MAX), "pids.max": "32"}
SEAT_LIMITS = {"memory.max": str(32 << 20), "pids.max": "8"}

# What it says goes to PID 1 by descriptor 3. It is one process from the shell to the program: no fork, so its
# pid stays.
SEAT_ARGV = ("/bin/sh", "-c", f"exec seatd -g {USER} -l info >&3 2>&3 3>&-")
COMPOSITOR_ARGV = (
    "unshare",
    "--mount",
    "/usr/lib/bay0-screen/compositor",
    "sway",
    "--config",
    f"{RUN}/config",
)


@frozen(repr=False)
class Places:
    """The machine's.

    `run` is root's: the configuration, and the bar's line; below it is the compositor's own, new at each
    start.
    """

    run: str = RUN
    seatd: str = SEATD
    seat_uid: int = 0
    uid: int = UID
    gid: int = GID
    seat_argv: tuple[str, ...] = SEAT_ARGV
    compositor_argv: tuple[str, ...] = COMPOSITOR_ARGV
    terminal: str = "/dev/tty0"  # of the kernel's console
    udev: str = "/run/udev/data"
    more: dict[str, str] = field(factory=dict)  # of the compositor's environment
    private: bool = True  # the compositor's own directory is a filesystem of its own

    @property
    def home(self) -> str:
        """The compositor's own directory."""
        return f"{self.run}/run"

    @property
    def config(self) -> str:
        """Its configuration."""
        return f"{self.run}/config"

    @property
    def bar(self) -> str:
        """The FIFO that its bar reads."""
        return f"{self.run}/bar"

    @property
    def wayland(self) -> str:
        """The name of its Wayland socket is its own choice: the first that is free, from 1 on."""
        return f"{self.home}/wayland-1"

    @property
    def ipc(self) -> str:
        """Its IPC socket."""
        return f"{self.home}/ipc"

    @property
    def options(self) -> str:
        """Of the filesystem that is its directory (tmpfs(5)): a font cache and a few sockets."""
        return f"size=4m,nr_inodes=128,mode=0700,uid={self.uid},gid={self.gid}"

    def seat_environment(self) -> dict[str, str]:
        """Return it: no virtual terminal is taken, so no key switches to one."""
        return {"SEATD_VTBOUND": "0", "SEATD_SOCK": self.seatd}

    def environment(self) -> dict[str, str]:
        """Return the compositor's, beside what every process of the spine has (effects/spawn.py).

        It may start without an input device.
        """
        return {
            "HOME": self.home,
            "XDG_RUNTIME_DIR": self.home,
            "XDG_CACHE_HOME": self.home,
            "LIBSEAT_BACKEND": "seatd",
            "SEATD_SOCK": self.seatd,
            "WLR_RENDERER": "pixman",
            "WLR_LIBINPUT_NO_DEVICES": "1",
            "SWAYSOCK": self.ipc,
            **self.more,
        }


SOCKETS = (Places().wayland, Places().ipc)
