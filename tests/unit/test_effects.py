"""The machine around PID 1: cgroups, mounts, the watchdog, and the end. Plain files play the kernel where the kernel cannot be had."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from kit import HandClock, Log, alive, in_child, no_descriptor_left, until

from bay0.effects import cgroup, modules, mounts, power, shield
from bay0.effects.pidfd import Ends
from bay0.effects.shield import FEED_EVERY_S, Watchdog

# ---- cgroups


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    (root / "cgroup.procs").write_text("1\n")
    monkeypatch.setattr(cgroup, "ROOT", str(root))
    return root


def test_without_a_hierarchy_everything_is_a_no_op(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert cgroup.make("commands/1") is None
    assert cgroup.shield_pid1() == list(cgroup.CONTROLLERS)
    assert cgroup.pids(nowhere) == []
    assert not cgroup.populated(nowhere)
    assert cgroup.remove(nowhere)
    cgroup.kill(nowhere)


def test_a_v1_or_hybrid_hierarchy_is_none(hierarchy: Path) -> None:
    os.unlink(hierarchy / "cgroup.controllers")
    assert cgroup.make("x") is None


def test_a_group_is_made_with_its_parents(hierarchy: Path) -> None:
    assert cgroup.make("commands/7") == str(hierarchy / "commands" / "7")
    assert cgroup.make("commands/7") == str(hierarchy / "commands" / "7")
    assert (hierarchy / "commands" / "7").is_dir()


def test_who_is_in_a_group_is_read_without_those_of_other_namespaces(hierarchy: Path) -> None:
    """The kernel shows them as 0, and kill(0) would be our own process group."""
    (hierarchy / "cgroup.procs").write_text("12\n0\n345\n")
    assert cgroup.pids(str(hierarchy)) == [12, 345]


def test_a_group_is_frozen_and_thawed_and_says_whether_it_was_told_to(hierarchy: Path) -> None:
    (hierarchy / "cgroup.freeze").write_text("0\n")
    assert cgroup.freeze(str(hierarchy), frozen=True) == ""
    assert cgroup.told_to_freeze(str(hierarchy))
    cgroup.thaw(str(hierarchy))
    assert not cgroup.told_to_freeze(str(hierarchy))
    assert not cgroup.told_to_freeze(str(hierarchy / "nowhere"))


@pytest.mark.parametrize(("text", "populated"), [("populated 1\nfrozen 0\n", True), ("populated 0\nfrozen 0\n", False)])
def test_whether_anybody_is_left_is_the_kernels_word(hierarchy: Path, text: str, populated: bool) -> None:
    (hierarchy / "cgroup.events").write_text(text)
    assert cgroup.populated(str(hierarchy)) is populated


@in_child
def test_of_a_group_that_cannot_be_asked_for_want_of_a_descriptor_nobody_says_that_it_has_ended(tmp_path: Path) -> None:
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with no_descriptor_left():
        assert cgroup.populated(str(tmp_path))
        assert not cgroup.frozen(str(tmp_path))


@in_child
def test_of_a_process_that_cannot_be_watched_for_want_of_a_descriptor_nobody_says_that_it_has_ended() -> None:
    clock = HandClock()
    ended: list[int] = []
    watched = Ends(clock.reactor)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
    with no_descriptor_left():
        watched.watch(pid, lambda: ended.append(pid))
        clock.wait(5)
    assert ended == []
    clock.wait(2)
    os.kill(pid, signal.SIGKILL)
    until(lambda: ended, "its end", step=lambda: clock.reactor.turn(0.05))
    watched.watch(pid, lambda: ended.append(0))
    watched.forget()


def test_a_group_that_is_not_empty_stays(hierarchy: Path) -> None:
    (hierarchy / "busy" / "inside").mkdir(parents=True)
    assert not cgroup.remove(str(hierarchy / "busy"))
    assert cgroup.remove(str(hierarchy / "busy" / "inside"))
    assert cgroup.remove(str(hierarchy / "busy"))


def test_pid_1_gets_a_leaf_and_hands_the_controllers_on(hierarchy: Path) -> None:
    assert cgroup.shield_pid1() == []
    assert (hierarchy / "init" / "cgroup.procs").read_text() == "0"
    assert (hierarchy / "cgroup.subtree_control").read_text() == "+cpu +memory +io +pids"
    for parent in cgroup.PARENTS:
        assert (hierarchy / parent / "cgroup.subtree_control").read_text() == "+cpu +memory +io +pids"
    assert (hierarchy / "init" / "cpu.weight").read_text() == "10000", "no turn waits for a processor that a command has"
    assert {(hierarchy / name / "cpu.weight").read_text() for name in ("commands", "services")} == {"1000"}, "and no command for a persona's"


def test_controllers_that_the_kernel_lacks_are_named(hierarchy: Path) -> None:
    (hierarchy / "cgroup.controllers").write_text("cpu pids\n")
    assert cgroup.shield_pid1() == ["memory", "io"]
    assert (hierarchy / "cgroup.subtree_control").read_text() == "+cpu +pids"


# ---- mounts


def test_what_is_missing_is_mounted_in_order_and_what_is_there_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"/", "/proc", "/dev"}
    monkeypatch.setattr(mounts, "mounted", lambda: there)
    monkeypatch.setattr(mounts, "mount", lambda _source, target, *_rest: there.add(target) or done.append(target))
    monkeypatch.setattr(mounts, "memory", lambda: 0)
    monkeypatch.setattr(mounts.os, "makedirs", lambda path, **_more: made.append(path))
    done: list[str] = []
    made: list[str] = []
    assert mounts.mount_kernel_filesystems() == []
    assert done == ["/sys", "/dev/pts", "/dev/shm", "/run", "/tmp", "/var", "/sys/fs/cgroup", "/dev"]
    assert made[:2] == ["/dev/pts", "/dev/shm"]


def test_what_cannot_be_mounted_or_made_is_named_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /var on a read-only root, its directories cannot be made: that must not end PID 1."""

    def mount(_source: str, target: str, *_rest: object) -> None:
        if target == "/var":
            raise OSError(12, "Cannot allocate memory")

    def makedirs(path: str, **_more: object) -> None:
        if path.startswith("/var/"):
            raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(mounts, "mounted", lambda: {"/"})
    monkeypatch.setattr(mounts, "mount", mount)
    monkeypatch.setattr(mounts.os, "makedirs", makedirs)
    failed = mounts.mount_kernel_filesystems()
    assert failed[0] == "/var: Cannot allocate memory"
    assert "/var/tmp: Read-only file system" in failed


def test_the_names_of_ones_own_descriptors_are_made_once_and_what_fails_is_named(tmp_path: Path) -> None:
    links = {f"{tmp_path}/fd": "/proc/self/fd", f"{tmp_path}/none/stdin": "/proc/self/fd/0"}
    for _time in range(2):
        assert mounts.link_streams(links) == [f"{tmp_path}/none/stdin: No such file or directory"]
        assert os.readlink(f"{tmp_path}/fd") == "/proc/self/fd"


@pytest.mark.parametrize("memory", [256 << 20, 1 << 30, 64 << 30])
def test_filesystems_in_memory_leave_half_of_it_with_the_inodes_of_all_their_files(memory: int) -> None:
    mounted = [line.target for line in mounts.PLAN if line.kind in ("tmpfs", "devtmpfs")]
    assert sorted(mounted) == sorted(mounts.SIZES)
    rooms = [dict(pair.split("=") for pair in mounts.size_of(target, memory).split(",")) for target in mounted]
    assert sum(int(room["size"]) for room in rooms) <= memory / 2
    assert sum(int(room["size"]) + 1024 * int(room["nr_inodes"]) for room in rooms) < memory * 0.6
    assert mounts.size_of("/proc", memory) == ""


def test_each_filesystem_in_memory_is_mounted_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    done: dict[str, str] = {}
    monkeypatch.setattr(mounts, "mounted", lambda: {"/", "/dev"})
    monkeypatch.setattr(mounts, "mount", lambda _source, target, _kind, _flags, options: done.__setitem__(target, options))
    monkeypatch.setattr(mounts, "memory", lambda: 1 << 30)
    monkeypatch.setattr(mounts.os, "makedirs", lambda *_words, **_more: None)
    assert mounts.mount_kernel_filesystems() == []
    assert done["/run"] == "mode=0755,size=161061273,nr_inodes=19660"
    assert done["/dev"] == "size=53687091,nr_inodes=6553", "it is there since stage 0"
    assert done["/proc"] == ""


def test_only_what_is_in_memory_is_looked_at_for_room(tmp_path: Path) -> None:
    (tmp_path / "info").write_text(
        "1 0 0:5 / /tmp rw - tmpfs tmpfs rw\n2 1 8:1 / /tmp rw - ext4 /dev/vda rw\n3 0 0:6 / /run rw shared:2 - tmpfs tmpfs rw\n"
    )
    assert mounts.in_memory(str(tmp_path / "info")) == ["/run"]


def test_what_is_mounted_here_is_read_from_the_kernel() -> None:
    assert "/proc" in mounts.mounted()


def test_every_line_of_the_plan_is_harmless_by_its_flags() -> None:
    for line in mounts.PLAN:
        assert line.flags & mounts.MS_NOSUID, line
        assert line.kind == "devtmpfs" or line.target == "/dev/pts" or line.flags & mounts.MS_NODEV, line


# ---- a container's cgroup


def test_the_processor_time_of_a_group_is_read_and_is_0_where_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("nr_periods 7\nusage_usec 1234\nuser_usec 1000\n")
    assert cgroup.usage_us(str(tmp_path)) == 1234
    (tmp_path / "cpu.stat").write_text("nonsense")
    assert cgroup.usage_us(str(tmp_path)) == 0
    assert cgroup.usage_us(str(tmp_path / "none")) == 0


def test_a_group_is_removed_with_those_in_it_unless_one_is_in_use(tmp_path: Path) -> None:
    group = tmp_path / "g"
    (group / "conmon").mkdir(parents=True)
    (group / "libpod-1" / "inner").mkdir(parents=True)
    assert not cgroup.remove_all(str(group))
    assert sorted(os.listdir(group)) == ["libpod-1"]
    (group / "libpod-1" / "inner").rmdir()
    assert cgroup.remove_all(str(group))
    assert not group.exists()
    assert cgroup.remove_all(str(group)), "gone is gone"


# ---- the watchdog


def test_where_there_is_no_watchdog_nothing_is_fed(tmp_path: Path) -> None:
    watchdog = Watchdog(str(tmp_path / "none"))
    assert watchdog.open() is False
    watchdog.feed(100.0)
    watchdog.disarm()
    assert shield.describe(watchdog) == {"armed": False, "timeout_s": None, "fed": 0, "failing": ""}


def test_a_watchdog_is_fed_when_it_is_due_and_not_more_often(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(str(device))
    assert watchdog.open() is True
    for now in (100.0, 100.1, 100.0 + FEED_EVERY_S - 0.1, 100.0 + FEED_EVERY_S, 200.0):
        watchdog.feed(now)
    assert device.read_bytes() == b"\0\0\0"
    assert shield.describe(watchdog) == {"armed": True, "timeout_s": 30, "fed": 3, "failing": ""}
    assert FEED_EVERY_S * 3 < shield.WATCHDOG_S


def test_only_the_magic_close_disarms_it(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(str(device))
    watchdog.open()
    watchdog.disarm()
    assert device.read_bytes() == b"V"
    assert not watchdog.armed
    watchdog.feed(1000.0)
    assert device.read_bytes() == b"V"


def test_one_that_stage_0_has_armed_is_taken_over_and_not_opened_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    watchdog, handed_on = Watchdog("/dev/full"), os.open("/dev/full", os.O_WRONLY)
    os.set_inheritable(handed_on, True)
    watchdog.take_over(str(handed_on))
    assert watchdog.armed
    assert not os.get_inheritable(handed_on)
    with monkeypatch.context() as patch:
        patch.setattr(shield.os, "open", lambda *_words, **_more: pytest.fail("a watchdog can be opened but once"))
        assert watchdog.open()
    watchdog.feed(1.0)
    assert watchdog.failing == "No space left on device", "it was this descriptor that was fed"
    watchdog.disarm()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handed_on)


def test_what_is_no_watchdog_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    other, file = os.open("/dev/null", os.O_WRONLY), os.open(tmp_path / "file", os.O_WRONLY)
    for word in (None, "", "5x", "-1", "9" * 30, "999999", str(other), str(file)):
        watchdog = Watchdog("/dev/full")
        watchdog.take_over(word)
        assert not watchdog.armed, word
        assert not watchdog.wanted, word
    for fd in (other, file):
        os.close(fd)
    Watchdog(str(tmp_path / "none")).take_over("1")


def test_a_watchdog_that_takes_no_food_does_not_end_pid_1() -> None:
    watchdog = Watchdog("/dev/full")
    assert watchdog.open()
    watchdog.feed(1.0)
    assert (watchdog.fed, watchdog.fed_at) == (0, 0.0)
    assert watchdog.failing == "No space left on device"


def test_a_watchdog_that_takes_food_again_fails_no_more(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(str(device), failing="No such device")
    watchdog.open()
    watchdog.feed(7.0)
    assert (watchdog.failing, watchdog.fed_at) == ("", 7.0)


def test_a_watchdog_whose_device_goes_away_is_not_armed_and_is_opened_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(str(device))
    watchdog.open()
    assert not watchdog.feed(100.0)
    with monkeypatch.context() as gone:
        def no_device(_fd: int, _data: bytes) -> int:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

        gone.setattr(shield.os, "write", no_device)
        assert watchdog.feed(105.0), "it is news"
        assert shield.describe(watchdog) == {"armed": False, "timeout_s": None, "fed": 1, "failing": "No such device"}
    device.unlink()
    assert watchdog.feed(110.0)
    assert watchdog.failing == f"{device} is gone"
    assert not watchdog.feed(115.0), "it is none any more"
    device.touch()
    assert watchdog.feed(120.0)
    assert shield.describe(watchdog) == {"armed": True, "timeout_s": 30, "fed": 2, "failing": ""}
    watchdog.disarm()
    assert not watchdog.feed(200.0), "nobody wants it any more"


def test_a_watchdog_that_is_there_and_cannot_be_had_is_no_missing_one(tmp_path: Path) -> None:
    (tmp_path / "watchdog").mkdir()
    watchdog = Watchdog(str(tmp_path / "watchdog"))
    assert not watchdog.open()
    assert (watchdog.armed, watchdog.failing) == (False, "Is a directory")


# ---- the end


@in_child
def test_a_bounded_sync_ends_with_the_sync() -> None:
    os.sync = lambda: None  # type: ignore[assignment]  # this process ends with the test
    assert power.bounded_sync(10.0) is True


@in_child
def test_a_sync_that_hangs_is_given_up_at_its_bound() -> None:
    os.sync = lambda: time.sleep(60)  # type: ignore[assignment]
    began = time.monotonic()
    assert power.bounded_sync(0.2) is False
    assert time.monotonic() - began < 5


@in_child
def test_a_sync_that_cannot_even_be_forked_is_given_up() -> None:
    def fork() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    os.fork = fork  # type: ignore[assignment]
    assert power.bounded_sync(0.2) is False


class Powered(BaseException):
    """The machine is gone."""


def last_words(policy: str, **changes: object) -> list[str]:
    """What the last resort says before the machine is gone; for use inside `in_child` only."""
    said: list[str] = []

    def gone(how: str) -> None:
        said.append(f"power {how}")
        raise Powered

    power.power = gone  # type: ignore[assignment]
    power.PAUSE_S = 0.01
    for name, value in changes.items():
        setattr(power, name, value)
    try:
        raise AssertionError("a defect in the reactor")
    except AssertionError as error:
        with pytest.raises(Powered):
            power.last_resort(error, policy, said.append, 5.0)
    return said


@in_child
def test_the_last_resort_says_what_happened_and_reboots() -> None:
    said = last_words("reboot", bounded_sync=lambda _s: True)
    assert "bay0: PANIC: AssertionError: a defect in the reactor" in said
    assert said[-2:] == ["bay0: PANIC: PID 1 failed; sync done; policy: reboot", "power reboot"]


@in_child
def test_the_last_resort_may_halt_and_says_when_the_disk_did_not_answer() -> None:
    said = last_words("halt", bounded_sync=lambda _s: False)
    assert said[-2:] == ["bay0: PANIC: PID 1 failed; sync gave no answer; policy: halt", "power halt"]


@in_child
def test_the_last_resort_may_give_a_shell_then_reboots() -> None:
    shells: list[int] = []
    said = last_words("shell", bounded_sync=lambda _s: True, _shell=lambda: shells.append(1))
    assert shells == [1]
    assert said[-1] == "power reboot"


@in_child
def test_a_shell_that_cannot_be_started_does_not_end_the_last_resort() -> None:
    said = last_words("shell", bounded_sync=lambda _s: True, SHELL=["/no/such/shell"])
    assert any("no shell" in line for line in said)
    assert said[-1] == "power reboot"


@in_child
def test_a_reboot_that_fails_is_tried_again() -> None:
    said: list[str] = []
    tries: list[str] = []

    def stubborn(how: str) -> None:
        tries.append(how)
        if len(tries) == 3:
            raise Powered
        raise OSError(1, "Operation not permitted")

    power.power, power.PAUSE_S, power.bounded_sync = stubborn, 0.01, lambda _s: True  # type: ignore[assignment]
    with pytest.raises(Powered):
        power.last_resort(RuntimeError("x"), "reboot", said.append, 1.0)
    assert len(tries) == 3
    assert said.count("bay0: PANIC: reboot(2): Operation not permitted; trying again") == 2


@in_child
def test_a_very_long_traceback_is_cut_to_what_a_screen_holds() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise RecursionError("deep")

    said: list[str] = []
    power.power = lambda _how: (_ for _ in ()).throw(Powered())  # type: ignore[assignment]
    power.PAUSE_S, power.bounded_sync = 0.01, lambda _s: True  # type: ignore[assignment]
    try:
        deep(200)
    except RecursionError as error:
        with pytest.raises(Powered):
            power.last_resort(error, "reboot", said.append, 1.0)
    assert len(said) <= 31


def test_every_way_to_end_is_a_call_of_reboot_2(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(power, "reboot", asked.append)
    for how in ("poweroff", "reboot", "halt"):
        power.power(how)
    assert asked == [0x4321FEDC, 0x01234567, 0xCDEF0123]
    with pytest.raises(KeyError):
        power.power("explode")


def test_the_helpers_of_these_tests_see_the_living() -> None:
    assert alive(os.getpid())
    assert Log().events() == []


def test_drivers_of_network_cards_are_never_asked_for(tmp_path: Path) -> None:
    for number, alias in enumerate(("pci:v00008086d0000100Esv0sd0bc02sc00i00", "virtio:d00000001v00001AF4", "virtio:d00000003v00001AF4")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "modalias").write_text(alias + "\n")
    assert modules.wanted(modules.aliases(f"{tmp_path}/*/modalias")).first == (*modules.ALWAYS, "virtio:d00000003v00001AF4")


@pytest.mark.parametrize(
    ("alias", "behind"),
    [
        ("pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", {"usb_storage", "uas", "sd_mod"}),
        ("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", {"sd_mod"}),
        ("virtio:d00000008v00001AF4", {"sd_mod"}),
        ("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", set()),  # virtio-blk
        ("pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", set()),  # NVMe
    ],
)
def test_a_controller_whose_disks_show_up_late_has_their_drivers_asked_for_with_it(tmp_path: Path, alias: str, behind: set[str]) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "modalias").write_text(alias + "\n")
    wanted = modules.wanted(modules.aliases(f"{tmp_path}/*/modalias"))
    assert set(wanted.disks) - {alias} == behind
    assert not behind & set(wanted.first), "disks come last"


def test_only_pid_1_gives_the_kernel_a_word(tmp_path: Path) -> None:
    trigger = tmp_path / "sysrq-trigger"
    trigger.touch()
    sysrq = power.Sysrq(str(trigger))
    sysrq.open()
    assert sysrq("b") is False
    assert trigger.read_text() == ""


def test_a_word_to_the_kernel_goes_through_a_file_that_is_open_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = tmp_path / "sysrq-trigger"
    trigger.touch()
    monkeypatch.setattr(power.os, "getpid", lambda: 1)
    sysrq = power.Sysrq(str(trigger))
    sysrq.open()
    trigger.unlink()
    assert sysrq("o") is True
    assert power.Sysrq(str(trigger))("o") is False
