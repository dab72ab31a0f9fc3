"""The AI tenant's first and only process: llama.cpp's server on a unix socket, and nothing around it.

Usage: serve [--check]

  /run/ai/server.sock          it listens here; umask 007, so owner and group of the directory may connect
  SPINE_AI_MODEL               the model, a GGUF file (default /model/default.gguf)
  SPINE_AI_NAME                what it is called in answers (default: the file's name without .gguf)
  SPINE_AI_SOCKET              another socket than the one above
  SPINE_AI_CONTEXT             tokens of question and answer together, for each of the slots (default 2048)
  SPINE_AI_SLOTS               requests worked on at once (default 2)
  SPINE_AI_THREADS             default: whole processors of the cgroup's quota, at least 1

--check looks at processor, model and library as a start does, and ends. Nothing is written but the socket: no home, no /tmp, no cache.
Reasons are one line on stderr, the last one. Status: 3 the processor, 4 no model, 5 no GGUF file, 6 a damaged model (or one that
llama.cpp does not know), 7 the socket, 2 a variable. TERM ends it at once, also while it loads (status 15).
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
import sys
from typing import NoReturn

SOCKET = "/run/ai/server.sock"
MODEL, MODEL_NAME = "/model/default.gguf", "SmolLM2-135M-Instruct"
CPU_MAX = "/sys/fs/cgroup/cpu.max"
# The wheel's llama.cpp is compiled for these (x86-64-v3); without them it dies of an illegal instruction and says nothing.
NEEDED_FLAGS = ("avx", "avx2", "fma", "f16c", "bmi2")
GGUF_VERSIONS = (2, 3)
LARGEST = 1 << 20  # tokens, slots or threads: what is above it is a typing error
SIZES = {"SPINE_AI_CONTEXT": 2048, "SPINE_AI_SLOTS": 2, "SPINE_AI_THREADS": 0}  # 0: see threads()
ANSWER = 512  # tokens of an answer whose request names no limit
BATCH, MICRO_BATCH = 256, 128  # tokens of a prompt worked on together; small, because their buffers are memory
TIMEOUT_S = 600  # a connection that neither reads nor writes
STATUS = {"variable": 2, "processor": 3, "missing": 4, "foreign": 5, "damaged": 6, "socket": 7}


class Refused(Exception):  # noqa: N818 - it is an answer, not an error
    """Why this server will not start: a key of STATUS and a sentence."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def number(name: str, default: int) -> int:
    """Return a whole number above 0 from the environment. Raises Refused."""
    text = os.environ.get(name, "")
    if not text:
        return default
    if not re.fullmatch("[0-9]{1,7}", text) or not 0 < int(text) <= LARGEST:
        raise Refused("variable", f"{name} must be a whole number from 1 to {LARGEST}, not {text!r}")
    return int(text)


def threads(cpu_max: str = CPU_MAX) -> int:
    """Return how many threads can really run at once: more only wait for each other at llama.cpp's barriers."""
    usable = len(os.sched_getaffinity(0))
    try:
        with open(cpu_max, encoding="ascii") as file:
            quota, period = file.read().split()
    except (OSError, ValueError):
        return usable
    return usable if quota == "max" else max(1, min(usable, int(quota) // int(period)))


def check_processor(cpuinfo: str = "/proc/cpuinfo") -> None:
    """Raise Refused if the library would die of an illegal instruction here."""
    with open(cpuinfo, encoding="utf-8", errors="replace") as file:
        flags = next((line.split(":", 1)[1].split() for line in file if line.startswith("flags")), [])
    lacking = [flag.upper() for flag in NEEDED_FLAGS if flag not in flags]
    if lacking:
        raise Refused("processor", f"this processor lacks {', '.join(lacking)}, which llama.cpp needs (QEMU: -cpu max, or -cpu host with KVM)")


def check_model(path: str) -> None:
    """Raise Refused if this is no GGUF file; what is behind its head is judged by the library."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Refused("missing", f"the model {path} is not there") from None
    except OSError as error:
        raise Refused("missing", f"the model {path} cannot be opened: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused("foreign", f"the model {path} is no file")
        head = os.read(descriptor, 8)
    except OSError as error:
        raise Refused("damaged", f"the model {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if head[:4] != b"GGUF":
        raise Refused("foreign", f"the model {path} is no GGUF file: it starts with {head[:4]!r}, not b'GGUF'")
    version = int.from_bytes(head[4:], "little")
    if version not in GGUF_VERSIONS:
        raise Refused("foreign", f"the model {path} is a GGUF file of version {version}; llama.cpp reads {' and '.join(map(str, GGUF_VERSIONS))}")


def remove_stale(path: str) -> None:
    """Take away the socket of a server that is gone. Raises Refused for anything else of that name."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISSOCK(mode):
            raise Refused("socket", f"{path} is there and no socket: it is left alone")
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused("socket", f"the old socket {path} cannot be removed: {error.strerror}") from None


def die_at_term() -> None:
    """Let TERM and INT end the process at once. A Python handler would wait: the library keeps the interpreter's lock while it loads."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    end = ctypes.cast(libc["_exit"], ctypes.c_void_p)
    for number_ in (signal.SIGTERM, signal.SIGINT):
        libc.signal(number_, end)


def word_of(log: str) -> str:
    """Return what the library says is wrong, out of its lines."""
    said = [line.split(": ", 1)[-1] for line in log.splitlines() if line.strip()]
    telling = [line.split("error loading model: ", 1)[1] for line in said if "error loading model: " in line]
    return (telling or said or ["it did not say why"])[-1]


def start(path: str, name: str, model: str, sizes: dict[str, int]) -> object:
    """Load the model and listen; the server works in threads of its own, as long as what is returned lives. Raises Refused."""
    # Read when libgomp is loaded. Threads that spin at a barrier burn the quota of those they wait for: measured, ten times slower.
    os.environ["OMP_WAIT_POLICY"] = "passive"
    import xllamacpp  # noqa: PLC0415 - only after the processor was looked at

    p = xllamacpp.CommonParams()
    p.hostnames = [path]
    p.model.path, p.model_alias = model, {name}
    if model == MODEL:
        # Its own template puts a system prompt of 21 tokens before each question. Without it the answers of so small a model are
        # better (it knows the capital of France), and the first token comes in half the time.
        p.chat_template = "chatml"
    p.n_parallel = sizes["SPINE_AI_SLOTS"]
    p.n_ctx = sizes["SPINE_AI_CONTEXT"] * p.n_parallel
    p.n_predict, p.n_batch, p.n_ubatch = ANSWER, BATCH, MICRO_BATCH
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = sizes["SPINE_AI_THREADS"] or threads()
    p.n_threads_http = p.n_parallel + 2  # /health is answered while all slots work
    p.timeout_read = p.timeout_write = TIMEOUT_S
    p.n_gpu_layers, p.fit_params, p.warmup, p.check_tensors = 0, False, False, True
    # Nothing of one request is kept for the next, and nothing tells one client about another.
    p.cache_prompt, p.cache_idle_slots, p.cache_ram_mib, p.n_ctx_checkpoints, p.slot_prompt_similarity = False, False, 0, 0, 0.0
    p.endpoint_slots = p.endpoint_props = p.endpoint_metrics = p.ui = False
    p.cors_origins = ""
    p.offline, p.verbosity = True, 1  # errors only: questions and answers are nobody's business
    kept, log = os.dup(2), os.memfd_create("log")
    os.dup2(log, 2)
    try:
        return xllamacpp.Server(p)
    except Exception:
        said = word_of(os.pread(log, 1 << 16, 0).decode(errors="replace"))
        kind = "socket" if "bind" in said or "HTTP" in said else "damaged"
        what = f"cannot listen on {path}" if kind == "socket" else f"the model {model} is damaged, or llama.cpp does not know its kind"
        raise Refused(kind, f"{what}: {said}") from None
    finally:
        os.dup2(kept, 2)
        os.close(log)


def refuse(reason: Refused) -> NoReturn:
    """Say why, and end without the library's destructors, which wait for its threads."""
    sys.stderr.write(f"serve: {reason}\n")
    sys.stderr.flush()
    os._exit(STATUS[reason.kind])


def main() -> int:
    """Serve until TERM."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__ or "serve [--check]: see services/ai/README.md")
        return 0
    if sys.argv[1:] not in ([], ["--check"]):
        sys.stderr.write("serve: takes --check, --help or nothing\n")
        return STATUS["variable"]
    die_at_term()
    os.umask(0o007)
    path, model = os.environ.get("SPINE_AI_SOCKET") or SOCKET, os.environ.get("SPINE_AI_MODEL") or MODEL
    name = os.environ.get("SPINE_AI_NAME") or (MODEL_NAME if model == MODEL else os.path.basename(model).removesuffix(".gguf"))
    try:
        sizes = {key: number(key, default) for key, default in SIZES.items()}
        check_processor()
        check_model(model)
        if sys.argv[1:]:
            import xllamacpp  # noqa: F401, PLC0415 - shows that it finds all it is linked to
            return 0
        remove_stale(path)
        server = start(path, name, model, sizes)
    except Refused as reason:
        refuse(reason)
    print(f"serve: {name} listens on {path}", flush=True)
    while server:
        signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
