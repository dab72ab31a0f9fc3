"""The AI tenant's image: what serve.py refuses and why, what the image's maker packs, and the real server where the image is built."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest
from kit import not_built

TOP = Path(__file__).parents[2]
SERVE, LIB = TOP / "services/ai/serve.py", TOP / "scripts/lib"
ARCHIVE = TOP / "build/spine-ai.tar"


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve", SERVE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"} | environment
    return subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False, timeout=60)


# ---- serve.py: reasons


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (None, 4, "is not there"),
        (b"", 5, "is no GGUF file: it starts with b''"),
        (b"\x7fELF" + b"\0" * 60, 5, "is no GGUF file"),
        (b"GGUF" + (1).to_bytes(4, "little"), 5, "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big"), 5, "version 50331648"),
    ],
)
def test_a_model_that_is_none_is_refused_with_one_line_and_a_status_of_its_own(
    tmp_path: Path, content: bytes | None, status: int, reason: str
) -> None:
    model = tmp_path / "m.gguf"
    if content is not None:
        model.write_bytes(content)
    said = run(sys.executable, SERVE, "--check", SPINE_AI_MODEL=str(model))
    assert said.returncode == status
    assert reason in said.stderr
    assert said.stderr.startswith(f"serve: the model {model} ")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_model_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, make: object) -> None:
    make(tmp_path / "m.gguf")
    said = run(sys.executable, SERVE, "--check", SPINE_AI_MODEL=str(tmp_path / "m.gguf"))
    assert (said.returncode, "is no file" in said.stderr) == (5, True)


@pytest.mark.parametrize("value", ["0", "-1", "x", "1e3", "99999999", " 2"])
def test_a_size_that_is_no_number_is_refused_before_anything_else(value: str) -> None:
    said = run(sys.executable, SERVE, SPINE_AI_MODEL="/nowhere", SPINE_AI_SLOTS=value)
    assert (said.returncode, "SPINE_AI_SLOTS must be a whole number" in said.stderr) == (2, True)


def test_a_processor_without_avx2_is_told_before_the_library_could_die_of_it(serve: ModuleType, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor: 0\nflags\t\t: fpu sse2 avx fma f16c bmi2\n")
    with pytest.raises(serve.Refused, match=r"lacks AVX2, .*-cpu max"):
        serve.check_processor(str(cpuinfo))
    cpuinfo.write_text("flags : fpu sse2 avx avx2 fma f16c bmi2\n")
    serve.check_processor(str(cpuinfo))


@pytest.mark.parametrize(
    ("quota", "wanted"), [("max 100000", 8), ("50000 100000", 1), ("100000 100000", 1), ("250000 100000", 2), ("6400000 100000", 8), ("", 8)]
)
def test_there_are_as_many_threads_as_the_quota_has_whole_processors(
    serve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, wanted: int
) -> None:
    monkeypatch.setattr(serve.os, "sched_getaffinity", lambda _pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert serve.threads(str(tmp_path / "cpu.max")) == wanted
    assert serve.threads(str(tmp_path / "absent")) == 8


def test_a_socket_left_behind_is_removed_and_anything_else_is_left_alone(serve: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    serve.remove_stale(str(path))
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    serve.remove_stale(str(path))
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(serve.Refused, match="no socket"):
        serve.remove_stale(str(path))
    assert path.read_text() == "precious"
    path.unlink()
    path.symlink_to(tmp_path)
    with pytest.raises(serve.Refused, match="no socket"):
        serve.remove_stale(str(path))


def test_of_the_librarys_lines_the_one_that_tells_is_shown(serve: ModuleType) -> None:
    log = "0.01 E llama_model_load: error loading model: tensor 'x' is not there\n0.02 E srv init: exiting due to model loading error\n"
    assert serve.word_of(log) == "tensor 'x' is not there"
    assert serve.word_of("0.02 E srv init: bind failed\n") == "bind failed"
    assert serve.word_of("") == "it did not say why"


def test_term_ends_it_also_while_the_library_keeps_the_interpreters_lock() -> None:
    code = f"import sys; sys.path.insert(0, {str(SERVE.parent)!r}); import serve; serve.die_at_term(); print('here', flush=True); sum(range(1 << 60))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"here\n"
        child.terminate()
        assert child.wait(30) == signal.SIGTERM


# ---- the image


def pack(out: Path, *layers: str, epoch: str = "5") -> subprocess.CompletedProcess[str]:
    return run(LIB / "packtree.py", "--name", "localhost/x:1", "--epoch", epoch, "--config", '{"User": "1000:1000"}', "--out", out, *layers)


def test_a_packed_tree_is_roots_and_has_no_setuid_file_and_its_digests_are_right(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "d").mkdir(parents=True)
    (one / "d/program").write_bytes(b"#!")
    (one / "d/program").chmod(0o6777)
    (one / "link").symlink_to("d/program")
    two.mkdir()
    (two / "data").write_bytes(b"x")
    (two / "data").chmod(0o666)
    assert pack(tmp_path / "a.tar", f"first={one}", f"second={two}").returncode == 0
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}
    (described,) = json.loads(members["manifest.json"])
    config = json.loads(members[described["Config"]])
    assert config["config"] == {"User": "1000:1000"}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{sha256(members[layer]).hexdigest()}" for layer in described["Layers"]]
    assert [entry["comment"] for entry in config["history"]] == ["first", "second"]
    entries = []
    for number, layer in enumerate(described["Layers"]):
        (tmp_path / f"{number}.tar").write_bytes(members[layer])
        with tarfile.open(tmp_path / f"{number}.tar") as tar:
            entries += [(info.name, info.mode, info.uid, info.gid, info.mtime) for info in tar]
    assert entries == [("d", 0o755, 0, 0, 5), ("d/program", 0o755, 0, 0, 5), ("link", 0o777, 0, 0, 5), ("data", 0o644, 0, 0, 5)]


def test_the_same_tree_gives_the_same_bytes_whatever_its_times_and_owners(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    os.utime(tmp_path / "two/file", (7, 7))
    (tmp_path / "two/file").chmod(0o600)
    pack(tmp_path / "1.tar", f"x={tmp_path}/one")
    pack(tmp_path / "2.tar", f"x={tmp_path}/two")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_a_tree_with_a_pipe_or_a_socket_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d/pipe")
    made = pack(tmp_path / "a.tar", f"x={tmp_path}/d")
    assert (made.returncode, "an image cannot hold it" in made.stderr, (tmp_path / "a.tar").exists()) == (1, True, False)


@pytest.mark.skipif(not Path("/usr/lib/x86_64-linux-gnu/libc.so.6").exists(), reason="not a Debian")
def test_a_program_gets_the_libraries_it_needs_and_what_is_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    shutil.copy(shutil.which("ls"), tmp_path / "root/usr/bin/ls")
    refused = run(LIB / "closure.py", tmp_path / "empty", tmp_path / "root")
    assert refused.returncode == 1
    assert "usr/bin/ls needs lib" in refused.stderr
    assert run(LIB / "closure.py", "/", tmp_path / "root").returncode == 0
    libraries = tmp_path / "root/usr/lib/x86_64-linux-gnu"
    loader = tmp_path / "root/lib64/ld-linux-x86-64.so.2"
    assert run(loader, "--library-path", libraries, tmp_path / "root/usr/bin/ls", tmp_path / "empty").returncode == 0


def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    if run("python3", "-m", "pip", "--version").returncode:
        pytest.skip("there is no pip")
    wheel = tmp_path / "index/demo-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("demo.py", "")
        made.writestr("demo-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1\n")
        made.writestr("demo-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr("demo-1.dist-info/RECORD", "")
    (tmp_path / "lock.txt").write_text(f"demo==1 --hash=sha256:{sha256(wheel.read_bytes()).hexdigest()}\n")
    fetch = f'. "{LIB}/say.sh"; . "{LIB}/wheels.sh"; CACHE="{tmp_path}/cache"; mkdir -p "$CACHE"; fetch_locked demo "{tmp_path}/lock.txt"'
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": os.devnull}
    assert run("bash", "-eu", "-c", fetch, **pip).returncode == 0
    shutil.rmtree(tmp_path / "cache")
    with zipfile.ZipFile(wheel, "a") as made:
        made.writestr("evil.py", "")
    refused = run("bash", "-eu", "-c", fetch, **pip)
    assert refused.returncode == 1
    assert "HASH" in refused.stderr.upper()
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".part")]


def test_every_lock_of_an_image_pins_every_wheel_with_a_hash() -> None:
    for name in ("ai.txt", "ai-client.txt"):
        lines = [line for line in (TOP / "scripts/lock" / name).read_text().replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
        assert lines
        assert all("==" in line and "--hash=sha256:" in line for line in lines), name


@pytest.mark.parametrize("script", ["mkai.sh", "mkask.sh", "mkaiclient.sh", "mkcounter.sh", "mkterminal.sh"])
def test_the_makers_of_images_say_what_is_wrong_before_they_build(tmp_path: Path, script: str) -> None:
    (tmp_path / "precious").write_text("not to be lost")
    cases = {"no image archive": ["-o", tmp_path / "precious"], "does not exist": ["-o", tmp_path / "absent/x.tar"], "unknown option": ["--what"]}
    for reason, arguments in cases.items():
        said = run(TOP / "scripts" / script, *arguments)
        assert said.returncode in (1, 2), reason
        assert reason in said.stderr
    assert (tmp_path / "precious").read_text() == "not to be lost"
    assert "-o FILE" in run(TOP / "scripts" / script, "--help").stdout


# ---- the real server, where the image is built: `scripts/mkai.sh` makes it


class Server:
    """The image's program in the image's root, as the image's user, asked over its socket."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.root, self.socket = root, root / "run/ai/server.sock"
        words = [f"{key}={value}" for key, value in environment.items()]
        command = ["/usr/sbin/chroot", "--userspec=1000:1000", str(root), "/usr/lib/ai/serve"]
        command[0:0] = ["env", "-i", "SPINE_AI_THREADS=1", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(60)
            channel.connect(str(self.socket))
            connection = http.client.HTTPConnection("ai")
            connection.sock = channel
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def until_ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask("GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.process.poll()}")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.getuid():
        pytest.skip("needs root, for a chroot")
    if not ARCHIVE.exists():
        not_built("needs build/spine-ai.tar (scripts/mkai.sh)")
    top = tmp_path_factory.mktemp("ai")
    with tarfile.open(ARCHIVE) as tar:
        (described,) = json.load(tar.extractfile("manifest.json"))
        for layer in described["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as files:
                files.extractall(top, filter="fully_trusted")
    shutil.copy("/proc/cpuinfo", top / "proc")  # all it reads there
    os.chown(top / "run/ai", 1000, 1000)
    os.chmod(top.parent, 0o755)
    os.chmod(top, 0o755)
    return top


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    started = Server(root)
    started.until_ready()
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.built
def test_the_image_has_no_shell_no_setuid_file_and_nothing_that_others_may_write(root: Path) -> None:
    files = [path for path in root.rglob("*") if not path.is_symlink() and not path.is_relative_to(root / "proc")]
    assert not [path for path in files if path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path in files if path.is_file() and path.lstat().st_mode & stat.S_IWOTH]
    programs = {path.name for path in files if path.is_file() and os.access(path, os.X_OK) and ".so" not in path.name}
    assert programs == {"serve"}


@pytest.mark.built
def test_the_real_server_answers_with_tokens_that_the_model_made(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 12, "temperature": 0}
    for _ in range(2):  # the second time nothing is remembered of the first
        status, text = server.ask("POST", "/v1/chat/completions", body)
        answer = json.loads(text)
        assert status == 200
        assert "France" in answer["choices"][0]["message"]["content"]
        assert answer["usage"]["completion_tokens"] > 3
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert answer["model"] == "SmolLM2-135M-Instruct"


@pytest.mark.built
def test_it_streams(server: Server) -> None:
    status, text = server.ask("POST", "/v1/completions", {"prompt": "One, two, three,", "max_tokens": 6, "stream": True})
    events = [line for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200
    assert len(events) > 3
    assert events[-1] == "data: [DONE]"


@pytest.mark.built
def test_slots_and_metrics_are_off_and_the_socket_is_for_owner_and_group(server: Server) -> None:
    assert [server.ask("GET", path)[0] for path in ("/slots", "/metrics")] == [501, 501]
    assert server.ask("POST", "/props", {})[0] == 501
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o770


@pytest.mark.built
def test_term_ends_the_real_server_at_once_and_the_next_one_removes_its_socket(root: Path, server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(10) == signal.SIGTERM
    assert server.socket.exists(), "it is left behind"
    again = Server(root)
    again.until_ready()
    again.process.terminate()
    assert again.process.wait(10) == signal.SIGTERM


@pytest.mark.built
def test_a_model_that_is_cut_off_is_told_in_one_line(root: Path) -> None:
    own = root / "model/own.gguf"
    with (root / "model/default.gguf").open("rb") as whole:
        own.write_bytes(whole.read(40_000_000))
    started = Server(root, SPINE_AI_MODEL="/model/own.gguf")
    _, said = started.process.communicate(timeout=60)
    assert started.process.returncode == 6
    assert said.count("\n") == 1
    assert said.startswith("serve: the model /model/own.gguf is damaged")
    assert "not within the file bounds" in said
