"""The image's own sway with its headless backend, for tests that speak with the real one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kit import BUILT_ROOT, not_built

SWAY_ENV = {
    "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "WLR_BACKENDS": "headless", "WLR_RENDERER": "pixman", "WLR_LIBINPUT_NO_DEVICES": "1",
    "LIBSEAT_BACKEND": "noop", "XKB_CONFIG_ROOT": str(BUILT_ROOT / "usr/share/X11/xkb"),
}  # fmt: skip
NOBODY = 65534


class RealSway:
    """It runs as nobody where the tests are root: it refuses to be root. `config`: more of its configuration (sway(5))."""

    def __init__(self, top: Path, config: str = "") -> None:
        self.run = top / "run"
        self.run.mkdir()
        self.uid = NOBODY if os.getuid() == 0 else os.getuid()
        os.chown(self.run, self.uid, -1)
        self.run.chmod(0o700)
        path = top / "config"
        path.write_text("xwayland disable\n" + config)
        libraries = BUILT_ROOT / "usr/lib/x86_64-linux-gnu"
        words = [str(BUILT_ROOT / "lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries), str(BUILT_ROOT / "usr/bin/sway")]
        places = {"HOME": str(self.run), "XDG_RUNTIME_DIR": str(self.run), "SWAYSOCK": str(self.run / "ipc")}
        self.log = top / "log"
        self.argv, self.env = [*words, "--config", str(path)], {**SWAY_ENV, **places}
        self._start()

    def _start(self) -> None:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}),
            )  # fmt: skip

    def anew(self) -> None:
        """Begin it again, with the configuration as it is now."""
        self.end()
        for each in self.run.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        self._start()

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def the_images_sway(config: str = "") -> Iterator[RealSway]:
    if not (BUILT_ROOT / "usr/bin/sway").is_file():
        not_built("no image with sway is built")
    with tempfile.TemporaryDirectory() as folder:  # short, and one that another user may enter
        os.chmod(folder, 0o755)
        found = RealSway(Path(folder), config)
        try:
            yield found
        finally:
            found.end()
