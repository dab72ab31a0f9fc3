"""The grammar of the verbs about the spine itself."""

from __future__ import annotations

from bay0.cli.grammar import JSON, LOG_TIMES, Option, Place, Verb, whole

DEADLINE_MAX_S = 3600.0
WAIT_MAX_S = 600  # for a screen that is ready
WINDOW, WINDOW_MAX = 16, 64  # requests under way, so that neither side's buffer fills


def _seconds(text: str) -> float:
    wanted = f"above 0 and at most {DEADLINE_MAX_S:g} seconds"
    try:
        value = float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not 0 < value <= DEADLINE_MAX_S:
        raise ValueError(wanted)
    return value


def _window(text: str) -> int:
    wanted = f"1 to {WINDOW_MAX}"
    try:
        value = int(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not 1 <= value <= WINDOW_MAX:
        raise ValueError(wanted)
    return value


def _wait(text: str) -> int:
    value = whole(text)
    if not 0 <= value <= WAIT_MAX_S:
        raise ValueError(f"0 to {WAIT_MAX_S} seconds")
    return value


def _power(how: str) -> Verb:
    return Verb(
        f"{how} in order: services stopped, disk closed", "spine:power", JSON,
        Option("--force", "kill everything without asking, sync what answers within 2 s, then cut the power"),
        more="If that hangs, --force is the way out, as is Ctrl-Alt-Del twice within 3 s.", sets={"how": how},
    )  # fmt: skip


def _nack(about: str, call: str, *more: Option) -> Verb:
    return Verb(about, call, JSON, *more, Place("digest", "sha256: and 64 hex digits"))


def _upgrade(about: str, how: str, *wanted: str) -> Verb:
    return Verb(about, "upgrade:act", JSON, sets={"how": how, "wanted": wanted})


VERBS = {
    "status": Verb("show what the spine is and how it feels", "spine:status", JSON),
    "boot": Verb(
        "show the steps of this boot and earlier ones, and how long each took", "spine:boot", JSON,
        Option("--previous", "earlier boots to show, 0 to 5 (default 3)", "N", default=3, convert=whole),
        Option("--svg", "also draw this boot as an SVG picture", "FILE"),
    ),
    "log": Verb(
        "print the log of this boot", "spine:log", JSON,
        Option("-f --follow", "go on as lines come; Ctrl-C ends it"),
        Option("-n --lines", "only the last N lines (default: all there is)", "N", default=0, convert=whole),
        *LOG_TIMES,
        Option("--level", "only this level and above", "LEVEL", choices=("debug", "info", "warning", "error")),
        Option("--machine", "only of this one: work, p://work, sys://console, boot, storage", "NAME"),
        more="All of it is done in this command's own process. -n counts the lines that are left.",
        example="bay0 log --since 10m --level warning\nbay0 log --machine work --grep 'pod(man)?' --wall -f",
    ),
    "machines": Verb("list every live state machine", "spine:machines", JSON),
    "history": Verb(
        "print the journal of one machine", "spine:history", JSON,
        Option("-n --lines", "the last N rows (default 50, at most 300)", "N", default=50, convert=whole),
        Place("machine", "its name, as `bay0 machines` lists it", of="machines"),
    ),
    "version": Verb(
        "print the version, and which image this is: its content, locks, kernel and build time", "version:run", JSON,
        Option("--short", "the version alone, as -V and --version give it"),
    ),
    "poweroff": _power("poweroff"),
    "reboot": _power("reboot"),
    "suspend": Verb(
        "put the machine to sleep once nothing is being written; status 1 if it stayed awake, with the reason", "inhibit:suspend", JSON,
        Option("--reason", "who asks, for the log; a lid's switch says lid (default: asked)", "TEXT", default="asked"),
        more=(
            "What is being written ends first, then database, time and seed are flushed, within a bound. The kernel is asked only with "
            "bay0.suspend=on on its command line; without it everything else is done and said, which is how to try it."
        ),
    ),
    "inhibit": Verb(
        "show who holds the lock against sleep, what waits for it, and what became of the last request", "inhibit:show", JSON
    ),
    "storage": Verb(
        "show the health of /persist, try again after it was mended, or grow it to the size of its disk", "spine:storage", JSON,
        Place(
            "action",
            "show (default); retry: open it again; grow: a disk that was made larger is used to its end (its last partition too), while all goes on",
            "ACTION", many="?", choices=("show", "retry", "grow"), default="show",
        ),
    ),
    "screen": Verb(
        "show the screen: its seat and compositor, who answers for them, outputs and input devices", "screen:show", JSON,
        Option("--wait", "until it is ready, at most N seconds (0 to 600); status 1 if it is not by then", "N", default=0, convert=_wait),
        more="A machine without a screen has none of this, and is well. `ready` means proved: both sockets are answered by the "
        "process that bay0 started, which offers what it may and nothing else.",
    ),
    "nack": Verb(
        "keep digests that must not be installed again: add, list, remove, check",
        below={
            "add": _nack(
                "refuse this digest from now on; on the disk before the answer", "nack:add",
                Option("--why", "what was wrong with it, for whoever asks later", "TEXT", default=""),
            ),
            "list": Verb("print what is refused, the newest first", "nack:list_all", JSON),
            "remove": _nack("allow this digest again; nothing else ever does", "nack:remove"),
            "check": _nack("exit with 0 if this digest may be installed, 1 if it is refused or nobody knows", "nack:check"),
        },
        aliases={"ls": "list", "rm": "remove"},
    ),
    "upgrade": Verb(
        "bring a newer spine: status, stage FILE, try; then accept, rollback or cancel, or let it prove itself",
        below={
            "status": Verb("show what both slots hold, what is staged, and what became of the last one", "upgrade:status", JSON),
            "stage": Verb(
                "write an image into the slot that does not run, and read it back; nothing else changes", "upgrade:stage", JSON,
                Option("--digest", "refuse it if it is another one: sha256: and 64 hex digits", "DIGEST"),
                Place("file", "an image made by scripts/package-efi.sh; - for stdin, with --digest", of="files"),
                example="bay0 upgrade stage /persist/spine.efi\nssh host cat spine.efi | bay0 upgrade stage - --digest sha256:...",
            ),
            "try": Verb(
                "restart into what is staged, once: it becomes the good one by itself if it stays well, or the machine goes back",
                "upgrade:attempt", JSON,
                Option("--no-watchdog", "even where no watchdog ends a hang before bay0 runs"),
                more="It is watched for 300 seconds (bay0.prove=S on its command line). RED, or a proof that does not end, and its digest "
                "is refused for good; a hang or a power cut, and it is tried again at the next boot, three times in all.",
            ),
            "cancel": _upgrade("forget what is staged or armed; its slot is wiped", "cancel", "idle"),
            "accept": _upgrade("end the proof: it is good", "accept", "good"),
            "rollback": _upgrade("go back to the spine before this one, and refuse this one's digest from then on", "rollback", "condemned"),
        },
    ),
    "run": Verb(
        "run one command in the spine, under a deadline; its exit status is ours, 124 if time ran out", "spine:run", JSON,
        Option("--deadline", "seconds until TERM, then KILL (default 30)", "S", default=30.0, convert=_seconds),
        Place("command", "the command, after --", "COMMAND", many="*", of="files"),
    ),
    "graph": Verb(
        "draw the state diagram of a machine from its table", "spine:graph",
        Option(
            "--format", "page: as in docs/machines; svg needs Graphviz (default mermaid)", "FORM",
            default="mermaid", choices=("mermaid", "dot", "svg", "page"),
        ),
        Option("--live", "mark the state it is in now (needs a spine)"),
        Place("machine", "its kind, such as boot, storage, tenant or persona; a wrong one lists them all", "KIND"),
    ),
    "rpc": Verb(
        "send JSON-RPC 2.0 requests from stdin, one a line, and print the answers", "rpc:run",
        Option(
            "--window", f"send N requests before their answers are awaited (default {WINDOW}); 1: one after the other", "N",
            default=WINDOW, convert=_window,
        ),
        Option("--each", "answer each request before the next is read: for a program at the other end of a pipe"),
    ),
    "completion": Verb(
        "print a completion script for a shell, such as: . <(bay0 completion bash)", "completion:run",
        Place("shell", "the shell that is to complete bay0's words", choices=("bash", "zsh", "fish")),
    ),
    "debug": Verb(
        "fail on purpose, to try bay0.panic= (needs bay0.debug on the kernel command line)", "spine:debug",
        Place("what", "crash: PID 1 fails as a defect would make it fail", choices=("crash",)),
    ),
    "help": Verb(
        "explain a verb or a topic", "topics:run",
        Place("words", "a verb, such as `persona start`, or a topic: personas, storage, ai, boot, json, status", "VERB|TOPIC", many="*", of="topics"),
        example="bay0 help\nbay0 help persona start\nbay0 help personas",
    ),
}  # fmt: skip
