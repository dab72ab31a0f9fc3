"""The grammar of the verbs for somebody who wonders what is the matter."""

from __future__ import annotations

from bay0.cli.grammar import JSON, Option, Place, Verb, whole
from bay0.validate.verdict import COMPONENTS

VERBS = {
    "validate": Verb(
        "check the spine's health: GREEN, YELLOW or RED, and what is not well; exit status 0, 1 or 2", "validate:run", JSON,
        Option("--only", f"only this one, may be given more than once: {', '.join(COMPONENTS)}", "NAME", choices=tuple(COMPONENTS), append=True),
    ),
    "doctor": Verb("say what is wrong and which command helps; status 0: nothing, 1: findings", "care:doctor", JSON),
    "governor": Verb("show what the governor sees, whom it restrains and why it acted", "care:governor", JSON),
    "turns": Verb(
        "show how long PID 1's turns took in the last quarter of an hour, and what the longest was about: one that blocks is a defect",
        "care:turns", JSON,
        Option("--since", "only since then: milliseconds since the kernel started", "MS", default=0, convert=whole),
    ),
    "support": Verb(
        "write a bundle for somebody who helps: state, log, journal, kernel; no persona's data, no secrets", "care:support",
        Place("file", "a new file, such as /tmp/support.tar.gz; - for stdout", of="files"),
    ),
}  # fmt: skip
