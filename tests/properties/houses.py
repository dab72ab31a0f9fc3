"""The personas' homes: real directories in the world's folder, made and taken away by the real worker. What was put into one is watched."""

from __future__ import annotations

import os

from attrs import define, field

DATA = "data"


@define(eq=False)
class Homes:
    """Whoever uses a home leaves something in it; it has to be there until somebody asked for an empty home."""

    folder: str
    kept: set[str] = field(factory=set)
    asking: list[str] = field(factory=list)  # whose emptying has been asked for and not been answered

    def used(self, path: str) -> None:
        """A container with this home has started."""
        if path:
            with open(os.path.join(path, DATA), "a", encoding="ascii") as file:
                file.write("dear diary\n")
            if os.path.basename(path) not in self.asking:
                self.kept.add(os.path.basename(path))

    def asked_to_empty(self, name: str) -> None:
        self.asking.append(name)
        self.kept.discard(name)

    def answered(self, name: str) -> None:
        self.asking.remove(name)

    def lost(self) -> list[str]:
        return [name for name in sorted(self.kept) if not os.path.exists(os.path.join(self.folder, name, DATA))]

    def left(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self.folder, name))
