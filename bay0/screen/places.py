"""Where seat and compositor are, who they are, and the words that start them."""

from __future__ import annotations

SEAT, COMPOSITOR = "sys://seat", "sys://compositor"
USER, UID, GID = "seat", 100, 100  # of the image's /etc/passwd: the compositor's user
RUN = "/run/compositor"  # root's: its configuration, and the bar's line
HOME = f"{RUN}/run"  # the compositor's own, new at each start
CONFIG, BAR = f"{RUN}/config", f"{RUN}/bar"
WAYLAND, IPC = f"{HOME}/wayland-1", f"{HOME}/ipc"
SEATD = "/run/seatd.sock"
HOME_OPTIONS = f"size=4m,nr_inodes=128,mode=0700,uid={UID},gid={GID}"
CARDS = "/dev/dri"
CTRL_ALT_DEL = "nop bay0 ctrl-alt-del"

MEMORY_MAX = 256 << 20  # bytes: the compositor's own 5 MB, two pictures of a large screen, its bar's and background's
PIDS_MAX = 32
COMPOSITOR_LIMITS = {"memory.max": str(MEMORY_MAX), "pids.max": str(PIDS_MAX)}
SEAT_LIMITS = {"memory.max": str(32 << 20), "pids.max": "8"}
COMPOSITOR_ENV = {
    "HOME": HOME, "XDG_RUNTIME_DIR": HOME, "XDG_CACHE_HOME": HOME, "LIBSEAT_BACKEND": "seatd", "SEATD_SOCK": SEATD,
    "WLR_RENDERER": "pixman", "SWAYSOCK": IPC,
}  # fmt: skip
SEAT_ENV = {"SEATD_VTBOUND": "0", "SEATD_SOCK": SEATD}

# What it says goes to PID 1 by descriptor 3. It is one process from the shell to the program: no fork, so its pid stays.
_SAYS = ">&3 2>&3 3>&-"
SEAT_ARGV = ("/bin/sh", "-c", f"exec seatd -g {USER} -l info {_SAYS}")
# A mount namespace of its own: the personas' disk is taken out, and what is mounted later does not come in.
_HIDE = """exec >&3 2>&3 3>&-
while umount --lazy --no-canonicalize /persist 2>/dev/null; do :; done
while read -r _ _ _ _ target _; do
    case $target in /persist | /persist/*) echo "the disk is still to be seen at $target"; exit 125 ;; esac
done </proc/self/mountinfo
mount -t tmpfs -o ro,nosuid,nodev,noexec,size=4k,mode=0 none /persist || exit 125
exec "$@"
"""
COMPOSITOR_ARGV = (
    "unshare", "--mount", "/bin/sh", "-c", _HIDE, "compositor",
    "setpriv", f"--reuid={UID}", f"--regid={GID}", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all",
    "--bounding-set=-all", "sway", "--config", CONFIG,
)  # fmt: skip
