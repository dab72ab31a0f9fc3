#!/usr/bin/env python3
"""A podman that does nothing, in as many bad ways as there are names in VICES; `honest` and a few more do it well.

FAKE_VICE names what it does, FAKE_DIR is where it notes each thing truly done (a line in `done`), and where it finds the plain files
that stand in for its cgroup. The first words of its command line say what it is asked, as with podman.
"""

from __future__ import annotations

import glob
import os
import signal
import sys
import time
from collections.abc import Callable

ID = "b8e5ac663970997c6ad064cc03199ee6a045ba9113e5f8c138fc6d9f10699896"
ROW = (
    f'{{"id":"{ID}","names":["p__a"],"state":"running","exitcode":0,"pid":652,"image":"localhost/bb:1","labels":{{"bay0.persona":"p://a",'
    '"x":"\u00e9"}}'
)
END = '{"end":true}'
LONG_S = 300
FLOOD = 300_000


def asked() -> str:
    return {"image": "image-rm", "system": "system-check"}.get(sys.argv[1], sys.argv[1])


def answer() -> bytes:
    """What a podman says that did what it was asked."""
    name = sys.argv[-1]
    image = f'{{"id":"sha256:{ID}","names":["localhost/bb:1"],"size":1486320}}'
    texts = {
        "ps": f"{ROW}\n{END}", "images": f"{image}\n{image}\n{END}", "run": f"{ID}\n", "create": f"{ID}\n", "init": f"{name}\n", "start": f"{name}\n",
        "unpause": f"{name}\n",
        "rm": f"{name}\n",
        "load": "Loaded image: localhost/bb:1\n",
        "image-rm": f"Untagged: {name}\n", "system-check": "",
    }  # fmt: skip
    return texts[asked()].encode()


def say(data: bytes, fd: int = 1) -> None:
    while data:
        data = data[os.write(fd, data) :]


def did() -> None:
    """Note that it was truly done."""
    with open(f"{os.environ['FAKE_DIR']}/done", "a", encoding="ascii") as done:
        done.write(asked() + "\n")


def honest() -> None:
    did()
    say(answer())


def hang() -> None:
    while True:
        time.sleep(LONG_S)


def ignores_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hang()


def answers_then_hangs() -> None:
    say(answer())
    hang()


def hangs_with_its_streams_closed() -> None:
    say(answer())
    os.close(1)
    os.close(2)
    hang()


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    hang()


def tidies_up_for_ever() -> None:
    signal.signal(signal.SIGTERM, lambda *_: say(b"tidying\n", 2))
    hang()


def succeeds_when_it_is_told_to_end() -> None:
    def ends(*_: object) -> None:
        say(answer())
        os._exit(0)

    signal.signal(signal.SIGTERM, ends)
    hang()


def grandchild_holds_the_pipe() -> None:
    honest()
    if os.fork() == 0:
        join()
        hang()


def join() -> None:
    """Be in the cgroup of the command, as the kernel would have it."""
    for group in glob.glob(f"{os.environ['FAKE_DIR']}/cgroup/commands/*"):
        with open(f"{group}/cgroup.procs", "a", encoding="ascii") as procs:
            procs.write(f"{os.getpid()}\n")


def leaves_a_daemon() -> None:
    honest()
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in (0, 1, 2, read):
                os.close(fd)
            join()
            os.close(write)
            hang()
        os._exit(0)
    os.close(write)
    os.read(read, 1)  # until the daemon is where the kernel would have put it at once


def endless_output() -> None:
    while True:
        say(b"x" * 65536)


def endless_rows() -> None:
    while True:
        say(ROW.encode() + b"\n")


def endless_errors() -> None:
    while True:
        say(b"Error: again\n", 2)


def bad_utf8() -> None:
    say(answer()[:5] + b"\xff\xfe\xc3(" + answer()[5:])


def bad_utf8_for_a_name() -> None:
    say(answer().replace(b"p__a", b"p__\xff").replace(ID.encode(), b"\xff" * 64).replace(b"localhost", b"\xff").replace(b"Loaded", b"\xc3"))


def wrong_json() -> None:
    say(b'[{"Id": 7}]\n')


def deep_json() -> None:
    say(b"[" * 60_000 + b"\n" + END.encode())


def table_for_people() -> None:
    say(b"CONTAINER ID  IMAGE  COMMAND  CREATED  STATUS  PORTS  NAMES\n")


def one_long_line() -> None:
    say(b"a" * (6 << 20))


def cut_off() -> None:
    say(answer()[:-2])


def end_before_the_rest() -> None:
    say(f"{END}\n{ROW}\n".encode())


def says_nothing() -> None:
    pass


def says_only_blanks() -> None:
    say(b"\n \n\n")


def closes_stdout_at_once() -> None:
    os.close(1)
    time.sleep(0.1)


def error_and_yet_status_0() -> None:
    say(answer())
    say(b"Error: it is not done\n", 2)


def answers_on_stderr() -> None:
    say(answer(), 2)


def answer_of_another() -> None:
    said = answer().replace(ID.encode(), ID[:12].encode()).replace(b"p__", b"p  ")
    say(said.replace(b"Untagged", b"Tagged").replace(b"Loaded image: ", b"Loading "))


def long_list() -> None:
    did()
    rows = "".join(ROW.replace(ID, f"{number:064x}") + "\n" for number in range(2000))
    say(f"{rows}{END}".encode() if asked() == "ps" else answer())


def slow_drip() -> None:
    did()
    for byte in answer():
        say(bytes((byte,)))
        time.sleep(0.001)


def drip_without_end() -> None:
    while True:
        say(b"x")
        time.sleep(0.02)


def warns_a_lot() -> None:
    say(b'time="2026" level=warning msg="Error: x"\n' * (FLOOD // 40), 2)
    honest()


def error_behind_a_flood() -> None:
    say(b"noise\n" * (FLOOD // 6), 2)
    say(b"Error: no such container\n", 2)
    sys.exit(125)


def disk_full() -> None:
    say(b"Error: creating container storage: write /x/.tmp-layers.json1: no space left on device\n", 2)
    sys.exit(125)


def damaged() -> None:
    say(b"Error: scanning schema version from DB config: database disk image is malformed\n", 2)
    sys.exit(125)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def go_panic() -> None:
    say(b"panic: runtime error: invalid memory address or nil pointer dereference\n\ngoroutine 1 [running]:\n", 2)
    sys.exit(2)


def answers_and_fails(status: int) -> Callable[[], None]:
    def fails() -> None:
        say(answer())
        sys.exit(status)

    return fails


def fails_without_a_word(status: int) -> Callable[[], None]:
    return lambda: sys.exit(status)


STATUSES = (1, 2, 125, 126, 127, 137, 255)
VICES: dict[str, Callable[[], None]] = {
    vice.__name__: vice
    for vice in (
        honest, hang, ignores_term, answers_then_hangs, hangs_with_its_streams_closed, stops_itself, tidies_up_for_ever,
        succeeds_when_it_is_told_to_end, grandchild_holds_the_pipe, leaves_a_daemon, endless_output, endless_rows, endless_errors, bad_utf8,
        bad_utf8_for_a_name, wrong_json, deep_json, table_for_people, one_long_line, cut_off, end_before_the_rest, says_nothing, says_only_blanks,
        closes_stdout_at_once, error_and_yet_status_0, answers_on_stderr, answer_of_another, long_list, slow_drip, drip_without_end, warns_a_lot,
        error_behind_a_flood, disk_full, damaged, crashes, go_panic,
    )
}  # fmt: skip
VICES |= {f"answers_and_fails_{status}": answers_and_fails(status) for status in STATUSES}
VICES |= {f"fails_without_a_word_{status}": fails_without_a_word(status) for status in STATUSES}


if __name__ == "__main__":
    VICES[os.environ["FAKE_VICE"]]()
