"""Images: those that are part of the spine, and what the control socket offers about all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import asdict, define

from bay0.base.errors import RefusedError
from bay0.control.answers import Listing
from bay0.state.fence import below_persist

if TYPE_CHECKING:
    from bay0.base.bounds import Bounds
    from bay0.control.server import Method, Reply
    from bay0.podman.calls import Podman, Verdict
    from bay0.reconcile.mending import Mending
    from bay0.state.link import Answer
    from bay0.state.port import StatePort


BUILT_IN = "/usr/share/spine-images"


def built_in() -> dict[str, str]:
    """Return the images that are part of the spine: name -> archive, to be loaded when one is first needed."""
    try:
        with open(f"{BUILT_IN}/index.json", encoding="utf-8") as file:
            return {name: f"{BUILT_IN}/{archive}" for name, archive in json.load(file).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


@define(eq=False, repr=False)
class ImageMethods:
    """The methods. `built_in`: the images that are part of the spine, name -> archive."""

    bounds: Bounds
    state: StatePort
    podman: Podman
    mending: Mending
    built_in: Callable[[], Mapping[str, str]]

    def methods(self) -> dict[str, Method]:
        """Return method name -> function."""
        return {"image.load": self.image_load, "image.list": self.image_list, "image.remove": self.image_remove}

    def image_load(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Load an archive that podman understands from `path`."""
        path = params["path"]
        if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
            raise ValueError("path must be an absolute path")
        self._need_disk()

        def loaded(verdict: Verdict) -> None:
            if verdict.ok:
                self.mending.came(verdict.value or ())
            _verdict(reply, lambda value: {"loaded": value}, verdict)

        load = partial(self.podman.image_load, path, loaded)
        if not below_persist(path):
            load()
            return
        self.state.keep_out_a_crowd()

        def looked(answer: Answer) -> None:
            why = answer.value if answer.ok else answer.why
            if why:
                reply(RefusedError(f"no archive can be loaded from there: {why}"))
            else:
                load()

        self.state.ask("image_archive", self.bounds.read, looked, path=path)

    def image_list(self, _params: Mapping[str, Any], reply: Reply) -> None:
        """Answer with podman's images, and with those of the spine that are loaded when they are first needed."""
        self._need_disk()
        built_in = self.built_in()

        def listed(verdict: Verdict) -> None:
            if not verdict.ok:
                reply(RefusedError(verdict.why))
                return
            found = [{**asdict(image), "built_in": image.name in built_in} for image in verdict.value]
            loaded = {image.name for image in verdict.value}
            found += [{"name": name, "id": None, "size": None, "built_in": True} for name in sorted(built_in) if name not in loaded]
            reply(Listing(found))

        self.podman.image_list(listed)

    def image_remove(self, params: Mapping[str, Any], reply: Reply) -> None:
        """Remove an image that no container uses."""
        name = str(params["name"])
        self._need_disk()

        def removed(verdict: Verdict) -> None:
            if verdict.ok:
                self.mending.went(name)
            _verdict(reply, lambda _value: {"removed": name}, verdict)

        self.podman.image_remove(name, removed)

    def _need_disk(self) -> None:
        if not self.state.healthy:
            raise RefusedError("images are on /persist, and storage is not durable now; `bay0 storage` tells why")


def _verdict(reply: Reply, shape: Callable[[Any], Any], verdict: Verdict) -> None:
    reply(shape(verdict.value) if verdict.ok else RefusedError(verdict.why))
