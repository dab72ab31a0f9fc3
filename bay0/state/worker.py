"""The owner of /persist: a process that answers one request after the other and may be abandoned at any of them.

Protocol: SOCK_SEQPACKET on descriptor 3, one JSON object a packet. Request {"id", "op", ...arguments}; answer {"id", "ok"} or
{"id", "error": {"code", "message"}}. It ends when PID 1's end of the socket is gone. It never starts a process and never waits for PID 1.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from bay0.base.errors import StorageError
from bay0.state import aifiles, checks, db, device, entropy, faults, files, genesis, homes, nack, pages, staging, time
from bay0.state.paths import DATABASE, GENESIS, MARKER, SEED, SPINE, TIME
from bay0.state.schema import VERSION

SOCKET_FD = 3
PACKET_MAX = 160 << 10  # bytes; below the kernel's default socket buffer of 208 KiB
ALIVE = f"{SPINE}/alive"
PROBE_WIDTH = 79
CHECK_S = 1.0  # a database may be of any size, and opening it has a bound
HISTORY_KINDS = ("boot", "storage", "upgrade")
PRUNE_EVERY = 500  # commits
NEWS_MAX = 20  # in one answer; the next has the rest
HISTORY_STEPS = 60  # of each boot, fewer if their reasons are long: they fit into a packet
STEPS_ROOM = 80_000  # bytes of JSON
_staged: list[dict[str, Any]] = []
_commits = itertools.count(1)
_failed: list[StorageError] = []  # why a commit failed


def _open() -> dict[str, Any]:
    device.prepare()
    version = db.open_database(DATABASE)
    return {"version": version, "checked": not version or db.look_through(CHECK_S)}


def _migrate(boot: dict[str, Any]) -> dict[str, Any]:
    ran = db.migrate()
    db.record_boot(boot)
    return {"ran": ran, "version": VERSION}


def _stage(steps: list[dict[str, Any]]) -> int:
    _staged.extend(steps)
    return len(_staged)


def _commit(steps: list[dict[str, Any]], full: bool) -> int:  # noqa: FBT001 - a field of the protocol
    """Commit `steps`, until one commit has failed: PID 1 sends the next before it hears of the last, and none may overtake.

    Such a worker is replaced; the steps come back in order, in the flush of the next one or before the close of this one.
    """
    if _failed:
        raise StorageError("fault" if _failed[0].code == "unsure" else _failed[0].code, f"an earlier commit failed: {_failed[0]}")
    try:
        new = db.commit(steps, full=full)
    except StorageError as error:
        _failed.append(error)
        raise
    if next(_commits) % PRUNE_EVERY == 0:
        with contextlib.suppress(StorageError):  # the steps are kept; that old ones are too is no failure of theirs
            db.prune()
    return new


def _flush() -> int:
    new = db.commit(_staged, full=True)
    _staged.clear()
    return new


def _probe(text: str) -> dict[str, int]:
    """Write and sync a few bytes, the only way to know that a disk still answers; return how much room there is."""
    with faults.translated():
        fd = files.side_file(ALIVE, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(fd, f"{text:<{PROBE_WIDTH}}\n".encode())  # of one length: it overwrites what an earlier boot wrote
            os.fdatasync(fd)
            return device.room(fd) | _beyond()
        finally:
            os.close(fd)


def _beyond() -> dict[str, int]:
    """Return how much larger the disk is than what is used of it (`device.extent`); nothing if that cannot be told."""
    try:
        found = device.extent()
    except (OSError, StorageError, ValueError):
        return {}
    return {key: found[key] for key in ("unused", "behind")}


def _genesis(lines: list[str]) -> bool:
    with faults.translated():
        genesis.append(GENESIS, lines)
    return True


def _history(limit: int, before: int | None = None) -> tuple[list[dict[str, Any]], bool]:
    """Return a page of the last boots, newest first, each with its last steps, and how it ended, as a later boot found."""
    return pages.page(
        {**boot, "end": _end(boot["boot_id"]), "steps": _last_steps(boot["boot_id"])} for boot in pages.boots(limit, before)
    )


def _end(boot_id: str) -> str | None:
    """Return why a boot rests; None: it runs, or the boot after it did not get so far."""
    rows = pages.journal(machine=f"boot:{boot_id[:8]}", limit=1)
    return str(rows[0]["why"]) if rows and rows[0]["boot_id"] != boot_id else None


def _last_steps(boot_id: str) -> list[dict[str, Any]]:
    newest_first = pages.journal(boot_id=boot_id, kinds=HISTORY_KINDS, limit=HISTORY_STEPS)[::-1]
    return pages.page(newest_first, STEPS_ROOM)[0][::-1]


def _time_save(seconds: int) -> int:
    with faults.translated():
        return time.save(TIME, seconds)


def _seed_renew() -> dict[str, Any]:
    with faults.translated():
        return entropy.renew(SEED)


def _farewell(seconds: int | None) -> dict[str, Any]:
    """Keep time and seed for the next boot; each is tried whatever became of the other."""
    done: dict[str, Any] = {"time": None, "seed": None, "failed": []}
    try:
        done["time"] = None if seconds is None else time.save(TIME, seconds)
    except OSError as error:
        done["failed"].append(f"time: {error}")
    try:
        done["seed"] = entropy.renew(SEED)["state"]
    except OSError as error:
        done["failed"].append(f"seed: {error}")
    return done


def _settle(seconds: int | None) -> dict[str, Any]:
    """Bring everything to the platter as at the end, but stay open: time, seed, database."""
    return {**_farewell(seconds), "checkpointed": db.checkpoint()}


def _close() -> dict[str, Any]:
    homes.stop_sweeping()
    try:
        empty = db.close()
    finally:
        try:
            device.unmount()
        except OSError:
            os.sync()  # somebody still holds it: what was written shall at least be on the disk
            raise
    return {"checkpointed": empty}


OPS: dict[str, Callable[..., Any]] = {
    "hello": lambda: os.getpid(),
    "find": lambda wanted: device.find(wanted),
    "mount": lambda devices: device.mount_first(devices),
    "prefer": lambda device_: device.prefer(device_),
    "time_load": lambda: time.load(TIME),
    "time_save": _time_save,
    "seed_use": lambda trust: entropy.use(SEED, trust=trust),
    "seed_renew": _seed_renew,
    "farewell": _farewell,
    "nack_put": lambda digest, why, at, boot_id: nack.put(digest, why, at, boot_id),
    "nack_drop": lambda digest: nack.drop(digest),
    "nack_find": lambda digest: nack.find(digest),
    "nack_page": lambda after="": nack.page(after),
    "open": _open,
    "migrate": _migrate,
    "machines": lambda after="": pages.machines(after),
    "stage": _stage,
    "flush": _flush,
    "commit": _commit,
    "journal": lambda machine, limit, before=None: pages.page(pages.journal(machine=machine, limit=limit, before=before)[::-1]),
    "history": _history,
    "probe": _probe,
    "room": lambda: device.room(),
    "extent": lambda: device.extent(),
    "genesis": _genesis,
    "genesis_tail": lambda count: genesis.tail(GENESIS, count),
    "containers_prepare": lambda: homes.prepare_containers(),
    "containers_aside": lambda: homes.set_containers_aside(),
    "persona_prepare": lambda name, home: homes.prepare(name, home=home),
    "ai_archive": lambda: aifiles.archive(),
    "image_archive": lambda path: aifiles.not_loadable(path),
    "ai_model": lambda path: aifiles.model(path),
    "home_give": lambda name, uid, gid: homes.give(name, uid, gid),
    "log_remove": lambda name: homes.remove_log(name),
    "home_empty": lambda name: homes.empty(name),
    "home_is_free": lambda name: staging.is_free(name),
    "staging_begin": lambda name, source: staging.begin(name, source),
    "staging_begin_anew": lambda name: staging.begin_anew(name),
    "staging_begin_again": lambda name, source, home: staging.begin_again(name, source, home),
    "staging_place": lambda name: staging.place(name),
    "staging_replace": lambda name: staging.replace(name),
    "snapshot_number": lambda name, least: staging.free_number(name, least),
    "snapshot_delete": lambda name: staging.delete(name),
    "staging_drop": lambda name: staging.drop(name),
    "staging_clear": lambda wanted: staging.clear(wanted),
    "trash_sweep": lambda: homes.sweep(was_removed=db.was_removed),
    "trash_left": lambda: homes.undeleted(),
    "validate_marker": lambda text: checks.marker(MARKER, text),
    "validate_log": lambda line: checks.log_line(GENESIS, line),
    "validate_database": lambda seconds: db.look_through(seconds),
    "settle": _settle,
    "close": _close,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do one request; every failure becomes an answer. With it goes what was found in the way on the disk."""
    reply = _done(request)
    if files.news:
        reply["misplaced"] = files.news[:NEWS_MAX]
        del files.news[:NEWS_MAX]
    return reply


def _done(request: dict[str, Any]) -> dict[str, Any]:
    number = request.pop("id")
    try:
        return {"id": number, "ok": OPS[request.pop("op")](**request)}
    except StorageError as error:
        return {"id": number, "error": {"code": error.code, "message": str(error)}}
    except OSError as error:
        failure = faults.translate(error)
        return {"id": number, "error": {"code": failure.code, "message": str(failure)}}
    except Exception as error:  # a bug here must become a dirty boot, not a silent worker
        return {"id": number, "error": {"code": "fault", "message": f"{type(error).__name__}: {error}"}}


def _encode(reply: dict[str, Any]) -> bytes:
    data = json.dumps(reply).encode()
    if len(data) > PACKET_MAX:
        return json.dumps({"id": reply["id"], "error": {"code": "fault", "message": "the answer is too large"}}).encode()
    return data


def main() -> int:
    """Serve descriptor 3 until its other end is closed. Started by a fork of PID 1 (effects/spawn.py)."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write("-900")  # the state outlives personas; only PID 1 is above it
    with socket.socket(fileno=SOCKET_FD) as peer:
        while True:
            packet = peer.recv(PACKET_MAX)
            if not packet:
                return 0
            peer.send(_encode(answer(json.loads(packet))))
