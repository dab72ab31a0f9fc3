"""The grammar of the verbs about the AI."""

from __future__ import annotations

from bay0.cli.grammar import JSON, Option, Place, Verb, whole
from bay0.cli.persona_words import BOUNDED, LOG, LOG_OPTIONS, WAIT

NAMES = ("ai", "sys://ai")
TOKENS = 256  # of an answer


def _verb(about: str, call: str, example: str, *takes: Option, more: str = "", **rest: object) -> Verb:
    name = Place("tenant", "its name: `ai` is short for sys://ai", "NAME", choices=NAMES)
    return Verb(about, f"tenant:{call}", JSON, *takes, name, example=example, more=more, **rest)  # type: ignore[arg-type]


def _move(word: str, about: str, more: str) -> Verb:
    return _verb(
        about,
        "move",
        f"bay0 tenant {word} ai\nbay0 tenant {word} ai --no-wait",
        WAIT,
        more=more,
        sets={"move": word},
    )


VERBS = {
    "tenant": Verb(
        "show, start, stop and configure the spine's servers: the AI",
        example="bay0 tenant show ai",
        below={
            "list": Verb("list the servers", "tenant:list_all", JSON, example="bay0 tenant list"),
            "show": _verb(
                "show one: its state and why, its envelope as wanted and as the kernel has it, and who spoke with it", "show",
                "bay0 tenant show ai", more="A ! marks a property of the envelope that is not as wanted.",
            ),
            "logs": _verb(
                "print what its server wrote, also when it is stopped", "logs", "bay0 tenant logs ai -n 20 -f", *LOG_OPTIONS, more=LOG
            ),
            "start": _move(
                "start", "start it, and load its image first if need be", f"Status 1 if it ended in failed; the reason is printed. {BOUNDED}"
            ),
            "stop": _move("stop", "let the requests in flight end, then stop it", BOUNDED),
            "restart": _move("restart", "stop it if it runs, then start it, with what `configure` has changed", BOUNDED),
            "configure": _verb(
                "choose its model, and whether it starts with the spine; for its next start", "configure",
                "bay0 tenant configure ai --model /persist/models/big.gguf\nbay0 tenant configure ai --default-model --no-autostart",
                Option("--model", "a GGUF file of your own, below /persist", "FILE"),
                Option("--default-model", "the model in its image"),
                Option("--autostart", "start it with the spine, or only when asked to", negatable=True),
                more="A model is a GGUF file below /persist that everybody may read; it is looked at now and at each start.",
                alone=("model", "default_model"),
            ),
        },
        aliases={"ls": "list", "ps": "list", "log": "logs", "halt": "stop"},
    ),
    "ask": Verb(
        "ask the AI something; the answer comes as it is made", "ask:ask", JSON,
        Option("--max-tokens", f"tokens of the answer (default {TOKENS})", "N", default=TOKENS, convert=whole),
        Place("question", "the question; without one it is read from stdin", "QUESTION", many="*"),
        example='bay0 ask "what is a state machine?"\nbay0 ask --max-tokens 20 <question.txt',
        more="The AI runs on this machine, without any network (`bay0 tenant show ai`). --json prints one object when the answer is whole.",
    ),
}  # fmt: skip
