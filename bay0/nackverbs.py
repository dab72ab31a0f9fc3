"""The control socket's half of `bay0 nack`: thin over the typed calls of the registry (state/registry.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bay0.errors import RefusedError
from bay0.state.registry import read_nack_registry, write_nack_registry

if TYPE_CHECKING:
    from bay0.control import Method, Reply
    from bay0.state.port import StatePort

LISTED_MAX = 400  # with every reason as long as may be they fit into what may wait for one client


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
        def read(found: Any) -> None:
            if isinstance(found, RefusedError):
                reply(found)
            else:
                newest = sorted(found, key=lambda row: (row["at"], row["digest"]), reverse=True)
                reply({"total": len(found), "entries": newest[:LISTED_MAX]})

        read_nack_registry(port, read)

    return {"nack.add": add, "nack.remove": remove, "nack.check": check, "nack.list": listed}
