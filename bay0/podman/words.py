"""What podman says, and what it means: its exit statuses and messages, its lists. Pure.

Texts: libpod/define/errors.go of podman, errors.go of containers/storage, and what podman 5.4 said when it was made to fail (each is in
tests/unit/test_podman.py). Exit statuses: podman-run(1). Of a text that could mean two things the one that needs more care wins; what is not
known is a FAULT.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any

from attrs import frozen

from bay0.base.errors import PodmanError
from bay0.effects.spawn import Ending, Result

STATES = frozenset({"unknown", "created", "initialized", "running", "stopped", "paused", "exited", "removing", "stopping"})
WHY_MAX = 300
_ID = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`', re.DOTALL)  # may hold the caller's words, which must not be taken for podman's
_ERROR = re.compile("^Error: ", re.MULTILINE)
_LOG_LINE = re.compile("^time=.*$", re.MULTILINE)


class Verb(Enum):
    """What podman was asked to do."""

    LIST = "list"
    RUN = "run"
    CREATE = "create"
    INIT = "init"
    START = "start"
    UNPAUSE = "unpause"
    REMOVE = "remove"
    LOAD = "image-load"
    IMAGES = "image-list"
    UNTAG = "image-remove"
    CHECK = "check"
    REPAIR = "repair"


class Outcome(Enum):
    """What came of it."""

    OK = "ok"
    NO_CONTAINER = "no_container"
    NO_IMAGE = "no_image"
    NAME_TAKEN = "name_taken"
    WRONG_STATE = "wrong_state"  # resuming what podman does not call paused
    STORAGE = "storage"  # podman's own storage, database or lock file is damaged
    DISK_FULL = "disk_full"
    NOT_THERE = "not_there"  # podman itself cannot be run
    REFUSED = "refused"  # podman understood and says no; asking again does not help
    TIMED_OUT = "timed_out"  # it was ended: nobody knows what it did
    ABANDONED = "abandoned"  # as above, and it hangs in the kernel
    WITHDRAWN = "withdrawn"  # it was not wanted any more when its turn came: podman was not called
    FAULT = "fault"  # anything else: nobody knows


@frozen
class Verdict:
    """What came of one call. `value` is there if it is OK.

    Of list and image_list it is the list, of run and create the id, of load the names, else lines of text.
    """

    outcome: Outcome
    why: str
    value: Any = None

    @property
    def ok(self) -> bool:
        """It was done, and podman said so."""
        return self.outcome is Outcome.OK


@frozen
class Container:
    """One container. `exit_code` counts for `exited` ones: -1 if podman does not know it, 0 if a power cut ended it."""

    id: str
    names: tuple[str, ...]
    state: str
    exit_code: int
    pid: int
    image: str
    labels: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name it was made with."""
        return self.names[0]


@frozen
class Image:
    """One name of an image ("" if it has none). `size` in bytes."""

    name: str
    id: str
    size: int


# ---- exit status and messages

# Later entries are looked at only if no earlier one is found. A broken disk is no damaged storage: repairing it would delete what is well.
_DISK_FULL = re.compile("no space left on device|database or disk is full|disk quota exceeded", re.IGNORECASE)
_MEANINGS = (
    (Outcome.DISK_FULL, _DISK_FULL),
    (Outcome.FAULT, re.compile("input/output error|disk i/o error|read-only file system|readonly database|structure needs cleaning", re.IGNORECASE)),
    (
        Outcome.STORAGE,
        re.compile(
            r"layer not known|may be corrupted|image is corrupted|database disk image is malformed|file is not a database"
            r"|database configuration mismatch|damage detected in local storage|loading primary \w+ store data|configure storage: loading"
            r"|error loading storage metadata|recreating the links|locating item named|layer is missing|parent of layer not known"
            r"|identifier is not a[n ]|/overlay/(?:l|[0-9a-f]{64})\b\S*: no such file|readlink \S*/overlay|/overlay/l: file exists"
            r"|locks in /libpod_lock|(?:acquiring|retrieving) lock \d|deadlock due to lock mismatch|unable to open database file"
        ),
    ),
    (Outcome.NO_CONTAINER, re.compile("no such container|no container with name or ID")),
    (Outcome.NAME_TAKEN, re.compile("that name is already in use|container already exists")),
    (Outcome.WRONG_STATE, re.compile("container state improper")),
    (Outcome.NO_IMAGE, re.compile("image not known|no such image|did not resolve to an alias")),
    (Outcome.FAULT, re.compile("internal libpod error|conmon exited prematurely|conmon failed|runtime has already been stopped")),
)
_ENDINGS = {Ending.TIMED_OUT: Outcome.TIMED_OUT, Ending.ABANDONED: Outcome.ABANDONED, Ending.SIGNALLED: Outcome.FAULT}
_NOT_RUN = re.compile("not found|Permission denied|Exec format error|Is a directory|No such file")
_CANNOT_RUN = 126  # 127: not found; both of the shell for podman, and of podman for a container's command
_NOT_FOUND = 127
_SAYS_NO = frozenset({2, 125, _CANNOT_RUN, _NOT_FOUND})


def classify(result: Result, verb: Verb) -> Verdict:
    """Turn exit status and messages into what they mean. An OK here still has to be proved by the output: see `judge`."""
    if result.ending is not Ending.EXITED:
        return Verdict(_ENDINGS[result.ending], result.reason())
    error = _ERROR.search(result.stderr)
    if result.status == 0:
        return Verdict(Outcome.FAULT, "exit status 0, and yet: " + _first_line(result.stderr, error)) if error else Verdict(Outcome.OK, "")
    outcome = _meaning(result, verb, error)
    full = outcome is Outcome.DISK_FULL and next((line for line in result.stderr.splitlines() if _DISK_FULL.search(line)), "").strip(" *\t")[:WHY_MAX]
    return Verdict(outcome, full or (_first_line(result.stderr, error) if error else result.reason()))


def _meaning(result: Result, verb: Verb, error: re.Match[str] | None) -> Outcome:
    if error is None:
        if result.status in (_CANNOT_RUN, _NOT_FOUND) and _NOT_RUN.search(result.stderr) and "could not be started" not in result.stderr:
            return Outcome.NOT_THERE
        return Outcome.FAULT
    said = _LOG_LINE.sub("", result.stderr[error.end() :])
    if verb in (Verb.CHECK, Verb.REPAIR):
        said = result.stdout + result.stderr  # its findings are the explanation
    plain = _QUOTED.sub('""', said)
    if not _DISK_FULL.search(plain) and any("may be corrupted" in line for line in _LOG_LINE.findall(result.stderr)):
        return Outcome.STORAGE  # the error behind it then says that there is no such image
    for outcome, pattern in _MEANINGS:
        if pattern.search(plain):
            return outcome
    return Outcome.REFUSED if result.status in _SAYS_NO else Outcome.FAULT


def _first_line(text: str, error: re.Match[str] | None) -> str:
    return text[error.end() if error else 0 :].strip().partition("\n")[0][:WHY_MAX]


def judge(result: Result, verb: Verb, names: Collection[str] = ()) -> Verdict:
    """Classify, and believe an OK only if the output shows it. `names`: the containers it was about."""
    verdict = classify(result, verb)
    if not verdict.ok:
        return verdict
    try:
        if result.dropped and verb not in (Verb.CHECK, Verb.REPAIR):
            raise PodmanError(f"podman's output is incomplete: {result.dropped} bytes too many")
        return Verdict(Outcome.OK, "", _PROOFS[verb](result, names))
    except PodmanError as error:
        return Verdict(Outcome.FAULT, str(error))


def _lines(result: Result, what: str, wanted: Callable[[str], Any]) -> tuple[str, ...]:
    """Return the lines of output, each of which must be `wanted`, and whole."""
    found = tuple(result.stdout.split("\n"))
    if found[-1] or "\ufffd" in result.stdout or not all(map(wanted, found[:-1])):
        raise PodmanError(f"podman's exit status is 0, but it does not say {what}: {_first_line(result.stdout, None)!r}")
    return found[:-1]


def _one_or_more(result: Result, what: str, wanted: Callable[[str], Any]) -> tuple[str, ...]:
    found = _lines(result, what, wanted)
    if not found:
        raise PodmanError(f"podman's exit status is 0, but it does not say {what}: it says nothing")
    return found


def _names_loaded(result: Result) -> tuple[str, ...]:
    head = "Loaded image: "
    return tuple(line.removeprefix(head) for line in _one_or_more(result, "what it loaded", lambda line: line.startswith(head)))


_PROOFS: dict[Verb, Callable[[Result, Collection[str]], Any]] = {
    Verb.LIST: lambda result, _: parse_list(result.stdout),
    Verb.IMAGES: lambda result, _: parse_images(result.stdout),
    Verb.RUN: lambda result, _: _one_or_more(result, "the container's id", _ID.fullmatch)[0],
    Verb.CREATE: lambda result, _: _one_or_more(result, "the container's id", _ID.fullmatch)[0],
    Verb.INIT: lambda result, names: _one_or_more(result, "what it prepared", names.__contains__),
    Verb.START: lambda result, names: _one_or_more(result, "what it started", names.__contains__),
    Verb.UNPAUSE: lambda result, names: _one_or_more(result, "whom it resumed", names.__contains__),
    Verb.REMOVE: lambda result, names: _lines(result, "whom it removed", names.__contains__),  # it says nothing of those that were absent
    Verb.LOAD: lambda result, _: _names_loaded(result),
    Verb.UNTAG: lambda result, _: _one_or_more(result, "what it removed", lambda line: line.startswith(("Untagged: ", "Deleted: "))),
    Verb.CHECK: lambda result, _: _deleted(result),
    Verb.REPAIR: lambda result, _: _deleted(result),
}


def _deleted(result: Result) -> tuple[str, ...]:
    return tuple(line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Deleted "))


# ---- lists


def parse_list(text: str) -> tuple[Container, ...]:
    """Read what `list_all` makes podman print. `PodmanError` with the first line that is not as it should be."""
    found = tuple(_each(text, _container))
    if len({container.id for container in found}) != len(found):
        raise PodmanError("podman lists a container twice")
    return found


def parse_images(text: str) -> tuple[Image, ...]:
    """Read what `image_list` makes podman print, one entry for each name. `PodmanError` as above."""
    return tuple(dict.fromkeys(image for images in _each(text, _images) for image in images))


def _each(text: str, read: Callable[[dict[str, Any]], Any]) -> list[Any]:
    *lines, last = text.rstrip("\n").split("\n")
    found = []
    for line in lines:
        try:
            found.append(read(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PodmanError(f"podman's list holds a line that makes no sense: {line[:200]!r}") from error
    if last != '{"end":true}':
        raise PodmanError(f"podman's list does not end as it should: {last[:200]!r}")
    return found


def _container(row: dict[str, Any]) -> Container:
    """Read one row. `ValueError`, `TypeError`, `KeyError`, `AttributeError`: not as podman writes it."""
    labels = {} if row["labels"] is None else row["labels"]
    names = _texts(row["names"])
    _need(isinstance(labels, dict))
    _need(_ID.fullmatch(row["id"]) and names and all(map(_NAME.fullmatch, names)) and row["state"] in STATES)
    _need(type(row["exitcode"]) is int and type(row["pid"]) is int and isinstance(row["image"], str))
    _need(all("\ufffd" not in key + value for key, value in labels.items() if key.startswith("bay0.")))  # bytes that were no text
    "".join((row["image"], *labels, *labels.values())).encode()  # half a surrogate pair could not even be logged
    return Container(row["id"], names, row["state"], row["exitcode"], row["pid"], row["image"], labels)


def _images(row: dict[str, Any]) -> list[Image]:
    digest = row["id"].removeprefix("sha256:")
    _need(_ID.fullmatch(digest) and type(row["size"]) is int)
    return [Image(name, digest, row["size"]) for name in _texts(row["names"] or [""])]


def _texts(value: list[str]) -> tuple[str, ...]:
    _need(isinstance(value, list) and "\ufffd" not in "".join(value))
    "".join(value).encode()
    return tuple(value)


def _need(true: object) -> None:
    if not true:
        raise ValueError
