"""`bay0 persona` and `focus`: what is sent, and what is made of the answer.

The grammar is in `persona_words`, the texts are in `persona_text`. Each function takes the options and returns the exit status.
What moves personas is in `persona_many`; what is rarer or needs more in `persona_make` (create) and `persona_own` (shell, exec, logs, history,
graph, events).
"""

from __future__ import annotations

from bay0.base.errors import Bay0Error, NoSpineError, RefusedError
from bay0.cli import client
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, NO_SPINE, REFUSED, UNSETTLED, emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bay0.base.names import Name
    from bay0.cli.grammar import Options


LABEL_SHORT = 32  # characters of a label, as bay0/base/names.py has it
WAIT_S = 900.0  # seconds; bay0 answers within its own bound, which a great patience makes long
NAMES_S = 2.0  # seconds; whoever pressed Tab does not wait longer


def name_of(text: str) -> Name:
    """Return the name that `work` or `p://work` stands for. `BadNameError` for a bad one, `RefusedError` for a system tenant's."""
    from bay0.base import names

    if text.startswith("sys://"):
        raise RefusedError(f"{text} is a system tenant, the spine's own: persona verbs leave it alone; `bay0 machines` shows it")
    return names.persona(text)


def semantic(text: str) -> str:
    """Return `p://work` for `work`. A name that is plainly good needs no module of grammar; errors are those of `name_of`."""
    label = text.removeprefix(report.SCHEME)
    if len(label) <= LABEL_SHORT and label.isascii() and label.isalpha() and label.islower():
        return report.SCHEME + label
    return name_of(text).semantic


def ask(method: str, options: Options, **params: Any) -> Any:
    """Call a method of the persona that is meant. A refusal says the nearest name if there is none of that one."""
    name = semantic(options.persona)
    return client.named(name, "persona.list", f"persona.{method}", name=name, **params)


def list_all(options: Options) -> int:
    """Show all personas."""
    if options.names:
        return _names()
    personas = client.call("persona.list")
    emit(options, personas, report.listing(personas) if personas else _none_yet())
    return DONE


def _none_yet() -> str:
    from bay0.cli import samples

    return report.none_yet(*samples.names())


def _names() -> int:
    """Print bare labels for a shell that completes a word; no complaint may stand in its line."""
    try:
        personas = client.call("persona.list", timeout_s=NAMES_S)
    except NoSpineError:
        return NO_SPINE
    except Bay0Error:
        return REFUSED
    for persona in personas:
        print(report.label(persona["name"]))
    return DONE


def show(options: Options) -> int:
    """Show one persona."""
    persona = ask("show", options)
    if options.manifest:
        from bay0.cli import persona_toml

        emit(options, persona.get("manifest"), persona_toml.text_of(persona).rstrip("\n"))
        return DONE
    emit(options, persona, report.facts(persona))
    return DONE


# ---- focus


def focus(options: Options) -> int:
    """Make a persona the active one, or tell which is."""
    if options.persona is None:
        active = client.call("focus.show")
        emit(options, active, f"{active['active']} is active" if active["active"] else "no persona is active; `bay0 focus NAME` makes one so")
        return DONE
    name = semantic(options.persona)
    found = client.named(name, "persona.list", "focus", timeout_s=WAIT_S, name=name, wait=options.wait)
    emit(options, found, report.focused(found))
    return DONE if found["settled"] or not options.wait else UNSETTLED
