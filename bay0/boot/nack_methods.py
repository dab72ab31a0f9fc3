"""The control socket's half of `bay0 nack`: thin over the typed calls of the registry (state/registry.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bay0.base.errors import RefusedError
from bay0.control.answers import Listing
from bay0.state.registry import Rows, list_nack_registry, read_nack_registry, write_nack_registry

if TYPE_CHECKING:
    from bay0.control.server import Method, Reply
    from bay0.state.port import StatePort

LISTED_MAX = 400  # the newest; of the others only the number is told


def methods(port: StatePort) -> dict[str, Method]:
    """Return method name -> function, bound to the state port."""

    def add(params: Mapping[str, Any], reply: Reply) -> None:
        write(params, reply, nacked=True)

    def remove(params: Mapping[str, Any], reply: Reply) -> None:
        write(params, reply, nacked=False)

    def write(params: Mapping[str, Any], reply: Reply, *, nacked: bool) -> None:
        digest = params["digest"]
        write_nack_registry(
            port, lambda done: reply(done if isinstance(done, RefusedError) else {"digest": digest, "nacked": nacked, "changed": done}),
            digest, why=str(params.get("why", "")), nacked=nacked,
        )  # fmt: skip

    def check(params: Mapping[str, Any], reply: Reply) -> None:
        digest = params["digest"]

        def read(found: Any) -> None:
            reply(found if isinstance(found, RefusedError) else {"digest": digest, "nacked": bool(found), **(found[0] if found else {})})

        read_nack_registry(port, read, digest)

    def listed(_params: Mapping[str, Any], reply: Reply) -> None:
        def read(found: tuple[int, Rows] | RefusedError) -> None:
            if isinstance(found, RefusedError):
                reply(found)
            else:
                total, newest = found
                reply(Listing(newest, {"total": total}, "entries"))

        list_nack_registry(port, read, LISTED_MAX)

    return {"nack.add": add, "nack.remove": remove, "nack.check": check, "nack.list": listed}
