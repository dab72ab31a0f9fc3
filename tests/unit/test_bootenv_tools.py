"""Our own code for BGENV.DAT against EFI Boot Guard's tools, bg_setenv and bg_printenv; where the loader comes from.

The tools are those of the loader's package, run with the C library of the spine's root that was built.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from diskkit import SCRIPTS, digest, run
from hypothesis import given, settings
from hypothesis import strategies as st

from bay0.state import bootenv
from bay0.state.bootenv import BootEnv, UState

ROOT = SCRIPTS.parent / "build/rootfs/usr"
LIBRARIES = ROOT / "lib/x86_64-linux-gnu"
NAMES = {
    "in_progress": "in_progress", "revision": "revision", "kernel": "kernel", "params": "kernelargs",
    "watchdog_s": "watchdog_timeout", "ustate": "ustate",
}  # fmt: skip
pytestmark = [
    pytest.mark.scripts,
    pytest.mark.built,
    pytest.mark.skipif(
        not (LIBRARIES / "ld-linux-x86-64.so.2").exists(),
        reason="no spine is built here from Debian's packages",
    ),
]
# what bg_setenv takes as words of a command line
WORDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=254)
NUMBERS = (st.integers(1, bootenv.WATCHDOG_MAX), st.integers(1, 0x7FFFFFFF))
ENVIRONMENTS = st.builds(
    BootEnv, WORDS, WORDS, st.booleans(), st.sampled_from(UState), *NUMBERS, st.just(b"")
)


def of_lock(what: str) -> subprocess.CompletedProcess[str]:
    """Run a function of scripts/lib/loader.sh."""
    parts = " ".join(f'. "$LIB/{name}.sh";' for name in ("say", "inputs", "loader"))
    return run("bash", "-euc", f"LIB={SCRIPTS}/lib; {parts} {what}", SCRIPTS / "genesis-flash.sh")


@pytest.fixture(scope="module")
def tools() -> Path:
    done = of_lock("loader_dir")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip(), "usr/bin/bg_setenv")


def bg(tools: Path, name: str, *words: str) -> str:
    done = run(
        LIBRARIES / "ld-linux-x86-64.so.2", "--library-path", LIBRARIES, "--argv0", name, tools, *words
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shown(tools: Path, file: Path) -> dict[str, str]:
    """Return what bg_printenv makes of a file."""
    lines = bg(tools, "bg_printenv", f"--filepath={file}", "--raw").splitlines()
    pairs = [line.partition("=") for line in lines]
    return {key.lower(): value for key, _, value in pairs}


def stated(env: BootEnv) -> dict[str, str]:
    """Return the same, as bg_printenv words it."""
    values = {name: getattr(env, field) for field, name in NAMES.items()}
    return {name: value if isinstance(value, str) else str(int(value)) for name, value in values.items()}


def test_the_loader_is_fetched_once_kept_and_is_what_the_lock_names():
    done = of_lock("pinned_loader")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    locked = {
        line.split()[0]: line.split()[1]
        for line in (SCRIPTS / "lock/loader.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert digest(path) == locked["loader"]
    assert path.is_relative_to(SCRIPTS.parent / "build/cache")
    again = of_lock("pinned_loader")
    assert (again.stdout, "downloading" in again.stderr) == (done.stdout, False)


@settings(max_examples=15, deadline=None)
@given(env=ENVIRONMENTS)
def test_what_we_write_is_what_bg_printenv_reads(
    tools: Path, tmp_path_factory: pytest.TempPathFactory, env: BootEnv
):
    file = tmp_path_factory.mktemp("env") / bootenv.FILE
    file.write_bytes(bootenv.encode(env))
    assert shown(tools, file) == stated(env)


@settings(max_examples=15, deadline=None)
@given(env=ENVIRONMENTS)
def test_what_bg_setenv_writes_is_byte_for_byte_what_we_write(
    tools: Path, tmp_path_factory: pytest.TempPathFactory, env: BootEnv
):
    file = tmp_path_factory.mktemp("env") / bootenv.FILE
    words = [
        f"--kernel={env.kernel}",
        f"--args={env.params}",
        f"--in_progress={int(env.in_progress)}",
        f"--ustate={int(env.ustate)}",
    ]
    bg(
        tools,
        "bg_setenv",
        f"--filepath={file}",
        *words,
        f"--watchdog={env.watchdog_s}",
        f"--revision={env.revision}",
    )
    assert bootenv.parse(file.read_bytes()) == env
    assert file.read_bytes() == bootenv.encode(env)


def test_what_bg_setenv_keeps_for_its_user_is_kept_by_us(tools: Path, tmp_path: Path):
    file = tmp_path / bootenv.FILE
    bg(tools, "bg_setenv", f"--filepath={file}", "--kernel=C:SLOTA:spine.efi", "--uservar=colour=blue")
    env = bootenv.parse(file.read_bytes())
    assert b"colour" in env.userdata
    file.write_bytes(bootenv.encode(env._replace(revision=9)))
    assert "colour=blue" in bg(tools, "bg_printenv", f"--filepath={file}", "--raw")
    assert shown(tools, file)["revision"] == "9"


@pytest.mark.parametrize("state", list(UState))
def test_each_state_is_called_by_bg_printenv_as_we_call_it(tools: Path, tmp_path: Path, state: UState):
    file = tmp_path / bootenv.FILE
    file.write_bytes(bootenv.encode(BootEnv(bootenv.kernel_of("SLOTA"), ustate=state)))
    assert f"({state.name})" in bg(tools, "bg_printenv", f"--filepath={file}")


def test_what_we_refuse_as_damaged_bg_printenv_refuses_too(tools: Path, tmp_path: Path):
    file = tmp_path / bootenv.FILE
    data = bytearray(bootenv.encode(BootEnv(bootenv.kernel_of("SLOTA"), revision=3)))
    data[7] ^= 1
    file.write_bytes(data)
    done = run(
        LIBRARIES / "ld-linux-x86-64.so.2",
        "--library-path",
        LIBRARIES,
        "--argv0",
        "bg_printenv",
        tools,
        f"--filepath={file}",
    )
    assert "CRC32" in done.stdout + done.stderr or done.returncode, done.stdout + done.stderr
