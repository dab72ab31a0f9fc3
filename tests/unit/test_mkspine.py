"""mkspine.sh outside the container: what it refuses, what it asks the engine for, and what a failed build leaves. The engine is a
script that notes its words; tests/vm/test_vm_alpine.py has the same with podman itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.scripts
TOP = Path(__file__).parents[2]
SCRIPTS = TOP / "scripts"
DIGEST = "85fe1e81d6758c208f3e1eed4338a1997e19d4be002d4dd32d3100c9a8c010a0"
PINNED = f"docker.io/library/alpine@sha256:{DIGEST}"

# The engine: has the image HAS names, and "builds" by leaving files where the real one would.
ENGINE = """#!/bin/bash
printf '%s\\n' "$*" >>"$NOTES/calls"
case "$1 $2" in
    "version "*) exit 0 ;;
    "image inspect") [ -n "$HAS" ] && printf '["alpine@sha256:%s"]\\n' "$HAS" ;;
    "pull "*) exit 1 ;;
    "run "*)
        for word in "$@"; do
            case $word in *:/work:rw) work="${word%:/work:rw}" ;; *:/cache:*) cache="${word%%:/cache:*}" ;; esac
            last="$word"
        done
        printf '%s\\n' "$@" >"$NOTES/$last"
        case $last in
            fetch) while read -r _ _ _ sum _; do [ "$NET" = down ] && exit 1; echo package >"$cache/$sum"; done <"$work/alpine-packages.txt" ;;
            build)
                [ "$MOOD" != fails ] || { echo half >"$work/spine.img"; exit 1; }
                if [ "$MOOD" = hangs ]; then echo half >"$work/spine.img"; touch "$NOTES/building"; sleep 60; fi
                mkdir "$work/rootfs"
                for name in vmlinuz spine.img spine.sbom.json; do echo "$name" >"$work/$name"; done
                echo '{"packages": [], "wheels": [], "build_root": {}}' >"$work/spine.manifest.json" ;;
        esac ;;
esac
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    folder = tmp_path / "build"
    wheels = hashlib.sha256((SCRIPTS / "lock/freeze-musl.txt").read_bytes()).hexdigest()[:12]
    (folder / "cache" / f"wheels-freeze-musl-{wheels}").mkdir(parents=True)  # so that nothing is downloaded
    return folder


def lock(path: Path, *rows: str) -> Path:
    path.write_text("# a lock\n" + "".join(f"{row}\n" for row in rows))
    return path


@pytest.fixture
def full_lock(tmp_path: Path) -> Path:
    sets = {"bash": "build,spine", "linux-virt": "vm", "linux-lts": "metal"}
    return lock(tmp_path / "lock.txt", *(f"{name} 1-r0 main {hashlib.sha256(name.encode()).hexdigest()} {each}" for name, each in sets.items()))


def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine" / "podman"
    path.parent.mkdir(exist_ok=True)
    path.write_text(ENGINE)
    path.chmod(0o755)
    return path


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    given = {"SPINE_ENGINE": str(engine(tmp_path)), "SPINE_BUILD": str(tmp_path / "build"), "NOTES": str(tmp_path)}
    return os.environ | given | {"HAS": DIGEST, "NET": "up", "MOOD": "works"} | {"SOURCE_DATE_EPOCH": "1767225600"} | more


def mkspine(tmp_path: Path, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / "mkspine.sh"), *map(str, arguments)]
    return subprocess.run(command, env=environment(tmp_path, **more), capture_output=True, text=True, check=False, timeout=60)


def left(build: Path) -> set[str]:
    return {path.name for path in build.iterdir()} - {"cache", ".lock"}


ARTIFACTS = {"vmlinuz", "spine.img", "spine.manifest.json", "spine.sbom.json", "spine.inputs", "rootfs"}


def test_the_builder_image_is_pinned_by_digest_and_no_script_pulls_a_tag() -> None:
    pinned = [line for line in (SCRIPTS / "mkspine.sh").read_text().splitlines() if line.startswith("ALPINE_BUILDER_IMAGE=")]
    assert pinned == [f'ALPINE_BUILDER_IMAGE="alpine@sha256:{DIGEST}"']


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("alpine:3.23.6", "what a tag names can change"),
        ("alpine", "what a tag names can change"),
        ("alpine:latest", "what a tag names can change"),
        (f"alpine:3.23@sha256:{DIGEST}", "has a tag as well"),
        (f"mirror.test:5000/alpine:3.23@sha256:{DIGEST}", "has a tag as well"),
        ("alpine@sha256:85fe", "64 hex digits"),
        (f"alpine@sha256:{DIGEST[:-1]}g", "64 hex digits"),
        (f"alpine@md5:{DIGEST}", "what a tag names can change"),
        (f"@sha256:{DIGEST}", "no image name"),
        (f"-v@sha256:{DIGEST}", "no image name"),
    ],
)
def test_another_builder_image_is_taken_by_digest_only(tmp_path: Path, build: Path, full_lock: Path, image: str, reason: str) -> None:
    made = mkspine(tmp_path, f"--image={image}", "--lock", full_lock)
    assert made.returncode == 2
    assert reason in made.stderr
    assert not (tmp_path / "calls").exists(), "no engine was asked"
    assert left(build) == set()


def test_a_registry_with_a_port_is_no_tag(tmp_path: Path, build: Path, full_lock: Path) -> None:
    image = f"mirror.test:5000/alpine@sha256:{DIGEST}"
    assert mkspine(tmp_path, "--image", image, "--lock", full_lock).returncode == 0
    assert f" {image} /bin/sh " in (tmp_path / "calls").read_text()


def test_the_container_gets_the_pinned_digest_a_read_only_source_no_network_and_no_rights(tmp_path: Path, build: Path, full_lock: Path) -> None:
    made = mkspine(tmp_path, "--lock", full_lock)
    assert made.returncode == 0, made.stderr
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("run ")]
    assert [call.rsplit(" ", 1)[1] for call in calls] == ["fetch", "build"]
    fetch, compile_ = calls
    for call in calls:
        assert f" {PINNED} /bin/sh /spine/scripts/lib/alpine-inside.sh " in call
        assert call.startswith("run --rm --pull=never "), "what is not the image by this digest is never fetched in passing"
        assert f" --volume {TOP}:/spine:ro " in call
        assert " --user 0:0 " in call
        assert " --cap-drop all " in call
        assert " --security-opt no-new-privileges " in call
        assert "--privileged" not in call
        assert "SYS_ADMIN" not in call.upper()
        mounts = [word for word in call.split() if ":/" in word and not word.startswith("docker.io")]
        assert sorted(word.split(":", 1)[1] for word in mounts) in (["/cache:ro", "/spine:ro", "/work:rw"], ["/cache:rw", "/spine:ro", "/work:rw"])
    assert " --network none " in compile_
    assert f" --volume {build}/cache/sha256:/cache:ro " in compile_
    assert " --network none " not in fetch
    assert " --env FLAVOR=vm " in compile_
    owner = compile_.split("--env OWNER=")[1].split()[0]
    assert owner == "0:0", "an engine named podman gives its root's files to whoever called it; root is root"
    assert left(build) == ARTIFACTS
    assert (build / "spine.img").read_text() == "spine.img\n"


def test_the_second_build_fetches_nothing_and_offline_works(tmp_path: Path, build: Path, full_lock: Path) -> None:
    assert mkspine(tmp_path, "--lock", full_lock).returncode == 0
    (tmp_path / "calls").unlink()
    again = mkspine(tmp_path, "--lock", full_lock, "--offline", NET="down")
    assert again.returncode == 0, again.stderr
    assert [line.rsplit(" ", 1)[1] for line in (tmp_path / "calls").read_text().splitlines() if line.startswith("run ")] == ["build"]
    assert not any(line.startswith("pull") for line in (tmp_path / "calls").read_text().splitlines())


def test_offline_names_what_the_cache_lacks(tmp_path: Path, build: Path, full_lock: Path) -> None:
    made = mkspine(tmp_path, "--lock", full_lock, "--offline")
    assert made.returncode == 1
    assert "2 of the locked packages are not in build/cache: bash-1-r0.apk linux-virt-1-r0.apk." in made.stderr
    assert left(build) == set()


def test_the_metal_flavor_takes_its_own_kernel(tmp_path: Path, build: Path, full_lock: Path) -> None:
    made = mkspine(tmp_path, "--lock", full_lock, "--offline", "--flavor", "metal")
    assert "linux-lts-1-r0.apk" in made.stderr
    assert "linux-virt" not in made.stderr


def test_a_lock_without_checksums_is_refused_and_the_ways_out_are_named(tmp_path: Path, build: Path) -> None:
    cases = {
        "no checksum yet for 1 packages (the first: bash)": ["bash 1-r0 main - build"],
        "no checksum yet for 2 packages (the first: musl)": ["musl - main - spine", "zlib - main - spine"],
    }
    for words, rows in cases.items():
        made = mkspine(tmp_path, "--lock", lock(tmp_path / "lock.txt", *rows))
        assert made.returncode == 1
        assert words in made.stderr
        assert all(way in made.stderr for way in ("renew-alpine.sh", "--from registry", "--unverified-lock"))
    assert "no lock file" in mkspine(tmp_path, "--lock", tmp_path / "absent").stderr
    assert left(build) == set()


def test_the_committed_lock_invents_no_checksum(tmp_path: Path) -> None:
    found = {suffix: (SCRIPTS / f"lock/alpine-packages.{suffix}").read_text().splitlines() for suffix in ("txt", "in")}
    rows, wanted = ([line.split("#")[0].split() for line in found[suffix] if line.split("#")[0].strip()] for suffix in ("txt", "in"))
    assert {(row[0], row[4]) for row in rows} >= {(name, sets) for name, sets in wanted}
    sums = {row[3] for row in rows}
    assert sums == {"-"} or all(len(each) == 64 for each in sums), "either renewed as a whole, or not at all"


def test_without_an_engine_or_its_image_it_says_so_and_names_the_other_source(tmp_path: Path, build: Path, full_lock: Path) -> None:
    nobody = mkspine(tmp_path, "--lock", full_lock, SPINE_ENGINE=str(tmp_path / "absent"))
    assert nobody.returncode == 1
    assert "neither podman nor docker answers here" in nobody.stderr
    nothing = mkspine(tmp_path, "--lock", full_lock, HAS="")
    other = mkspine(tmp_path, "--lock", full_lock, HAS="0" * 64)
    for made in (nothing, other):
        assert made.returncode == 1
        assert "neither has alpine@sha256:85fe" in made.stderr
    for made in (nobody, nothing, other):
        assert "--from registry" in made.stderr
    assert left(build) == set()


def test_why_not_alpine_is_one_line_or_none(tmp_path: Path, build: Path, full_lock: Path) -> None:
    assert mkspine(tmp_path, "--why-not-alpine", "--lock", full_lock).stdout == ""
    why = mkspine(tmp_path, "--why-not-alpine", "--lock", full_lock, HAS="")
    assert (why.returncode, why.stdout.count("\n")) == (0, 1)
    assert "nor can pull it" in why.stdout


def test_no_container_is_refused_where_this_is_no_alpine(tmp_path: Path, build: Path, full_lock: Path) -> None:
    if os.path.exists("/etc/alpine-release"):
        pytest.skip("this is an Alpine")
    made = mkspine(tmp_path, "--no-container", "--lock", full_lock)
    assert made.returncode == 1
    assert "this is none" in made.stderr
    assert left(build) == set()


def test_the_inner_script_refuses_to_run_outside_of_a_container(tmp_path: Path) -> None:
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        pytest.skip("this is a container")
    inner = {"WORK": str(tmp_path), "PACKAGES": str(tmp_path), "OWNER": "0:0"}
    command = ["sh", str(SCRIPTS / "lib/alpine-inside.sh"), "build"]
    made = subprocess.run(command, env=os.environ | inner, capture_output=True, text=True, check=False, timeout=30)
    assert made.returncode == 1
    assert "Only --no-container builds outside" in made.stderr


@pytest.mark.parametrize("how", ["fails", "fetch"])
def test_a_build_that_fails_leaves_the_last_one_as_it_was(tmp_path: Path, build: Path, full_lock: Path, how: str) -> None:
    assert mkspine(tmp_path, "--lock", full_lock).returncode == 0
    for name in ("spine.img", "vmlinuz"):
        (build / name).write_text("the last one")
    if how == "fetch":
        shutil.rmtree(build / "cache/sha256")
    made = mkspine(tmp_path, "--lock", full_lock, **({"MOOD": "fails"} if how == "fails" else {"NET": "down"}))
    assert made.returncode == 1
    assert ("nothing was changed" if how == "fails" else "what did arrive is kept") in made.stderr
    assert left(build) == ARTIFACTS
    assert (build / "spine.img").read_text() == (build / "vmlinuz").read_text() == "the last one"


def test_an_interrupted_build_leaves_the_last_one_as_it_was(tmp_path: Path, build: Path, full_lock: Path) -> None:
    assert mkspine(tmp_path, "--lock", full_lock).returncode == 0
    (build / "spine.img").write_text("the last one")
    command = ["bash", str(SCRIPTS / "mkspine.sh"), "--lock", str(full_lock)]
    with subprocess.Popen(command, env=environment(tmp_path, MOOD="hangs"), stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while not (tmp_path / "building").exists():
            assert process.poll() is None
        os.killpg(process.pid, 15)
        assert process.wait(30) != 0
    assert left(build) == ARTIFACTS
    assert (build / "spine.img").read_text() == "the last one"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--from", "debian"], "registry or alpine"),
        (["--flavor", "tv"], "vm or metal"),
        (["--fresh", "--offline"], "choose one"),
        (["--from", "registry", "--flavor", "metal"], "needs --from alpine"),
        (["--engine"], "needs a value"),
        (["--nonsense"], "unknown option"),
    ],
)
def test_a_wrong_word_is_a_wrong_use(tmp_path: Path, build: Path, arguments: list[str], reason: str) -> None:
    made = mkspine(tmp_path, *arguments)
    assert made.returncode == 2
    assert reason in made.stderr
    assert left(build) == set()


# ---- what names an image


def rootdigest(root: Path) -> str:
    command = ["python3", str(SCRIPTS / "lib/rootdigest.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_the_content_digest_sees_names_bytes_modes_and_links_but_neither_times_nor_the_manifest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib/bay0").mkdir(parents=True)
    (root / "usr/lib/bay0/manifest.json").write_text("{}")
    (root / "file").write_text("a")
    (root / "link").symlink_to("file")
    first = rootdigest(root)
    os.utime(root / "file", (1, 1))
    (root / "usr/lib/bay0/manifest.json").write_text('{"content_sha256": "..."}')
    assert rootdigest(root) == first
    seen = {first}
    for change in (
        lambda: (root / "file").write_text("b"), lambda: (root / "file").chmod(0o600), lambda: (root / "file").rename(root / "other"),
        lambda: ((root / "link").unlink(), (root / "link").symlink_to("other")), lambda: (root / "empty").mkdir(),
    ):  # fmt: skip
        change()
        now = rootdigest(root)
        assert now not in seen
        seen.add(now)


def sbom_check(bill: dict[str, object], root: Path, tmp_path: Path) -> str:
    (tmp_path / "bill.json").write_text(json.dumps(bill))
    command = ["python3", str(SCRIPTS / "lib/sbom.py"), "--check", str(tmp_path / "bill.json"), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


def test_an_sbom_that_does_not_fit_its_image_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    frozen = root / "usr/lib/bay0/_internal"
    (frozen / "structlog").mkdir(parents=True)
    (frozen / "structlog/__init__.pyc").touch()
    (frozen / "libz.so.1").touch()
    (root / "usr/lib/modules/6.1").mkdir(parents=True)
    (root / "usr/lib/modules/6.1/modules.dep").touch()
    (root / "usr/lib/bay0/manifest.json").write_text(json.dumps({"packages": [{"kind": "deb", "name": "bash", "version": "5"}]}))

    def part(kind: str, name: str, **more: object) -> dict[str, object]:
        properties = [{"name": "spine:kind", "value": kind}, *more.pop("properties", [])]  # type: ignore[misc]
        return {"bom-ref": name, "name": name, "version": "5", "properties": properties} | more

    wheel = part("wheel", "structlog", scope="required")
    library = part("bundled", "zlib", properties=[{"name": "spine:file", "value": "/usr/lib/bay0/_internal/libz.so.1"}])
    kernel = part("kernel-wheel", "linux", properties=[{"name": "spine:kernel_release", "value": "6.1"}])
    good = [part("deb", "bash"), wheel, library, kernel]
    assert sbom_check({"components": good}, root, tmp_path) == ""
    assert "bash 5 is in only one" in sbom_check({"components": good[1:]}, root, tmp_path)
    assert "dash 5 is in only one" in sbom_check({"components": [*good, part("deb", "dash")]}, root, tmp_path)
    assert "structlog in the frozen program belongs to no component" in sbom_check({"components": [good[0], library, kernel]}, root, tmp_path)
    assert "libz.so.1 is in only one" in sbom_check({"components": [good[0], wheel, kernel]}, root, tmp_path)
    assert "is listed twice" in sbom_check({"components": [*good, wheel]}, root, tmp_path)
    shutil.rmtree(root / "usr/lib/modules/6.1")
    assert "the kernel 6.1 of linux has no modules" in sbom_check({"components": good}, root, tmp_path)


@pytest.mark.parametrize("folder", ["/work/spine", "/work/freezer", "/freeze"])
def test_the_lock_of_wheels_is_one_file_whatever_the_checkout_is_called(folder: str) -> None:
    """Else the manifest is made of four files in one name, and the build ends there."""
    script = f'. "{SCRIPTS}/lib/manifest.sh"; LOCK={folder}/scripts/lock SOURCE=registry; wheels_lock'
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert found == f"{folder}/scripts/lock/freeze.txt\n"
