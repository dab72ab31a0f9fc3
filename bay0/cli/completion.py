"""Completion scripts for bash, zsh and fish, made of the command line's own grammar.

A word is completed by where it stands: after which verbs, and after which option. Names of personas come from `bay0 persona list --names`,
which says nothing without a spine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from attrs import field, frozen

SHELLS = ("bash", "zsh", "fish")
NAMES = "bay0 persona list --names 2>/dev/null"
PERSONA, FILE = "persona", ("file", "source")  # what an argument is called says what completes it


@frozen
class Place:
    """One verb: `path` as it is typed after `bay0`, what may follow it."""

    path: str
    about: str
    words: dict[str, str] = field(factory=dict)  # verbs, options and fixed words -> help
    values: dict[str, tuple[str, ...]] = field(factory=dict)  # option that takes a value -> the values there are, none: anything
    names: bool = False  # personas come here
    files: bool = False


def places(parser: argparse.ArgumentParser, path: str = "", about: str = "") -> Iterator[Place]:
    """Yield the place of `parser` and those of its verbs. Reads argparse's own lists, for which it has no public names."""
    words: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    names = files = False
    below: list[Place] = []
    for action in parser._actions:  # noqa: SLF001 - see above
        text = _line(action.help)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            helps = {choice.dest: _line(choice.help) for choice in action._choices_actions}  # noqa: SLF001 - as above
            words |= {verb: helps.get(verb, "") for verb in action.choices}
            for verb, sub in action.choices.items():
                below += places(sub, f"{path} {verb}".strip(), helps.get(verb, ""))
        elif action.option_strings:
            words |= dict.fromkeys((o for o in action.option_strings if o != "-h"), text)
            if action.nargs != 0:
                values |= dict.fromkeys(action.option_strings, tuple(map(str, action.choices or ())))
        else:
            words |= {str(choice): text for choice in action.choices or ()}
            names |= action.dest == PERSONA
            files |= action.dest in FILE
    yield Place(path, about, words, values, names, files)
    yield from below


def _line(text: str | None) -> str:
    """Return help on one line, without what a shell's quotes would trip over."""
    return "".join(c for c in " ".join((text or "").split()) if c not in "'\"`\\$[]:")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script for one of `SHELLS`."""
    found = list(places(parser))
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell](found)


def _walk(found: list[Place], word: str) -> list[str]:
    """Return the `case` that goes one verb on; the same text for bash and zsh."""
    known = "|".join(f'"{p.path}"' for p in found if p.path)
    return [f'        case "${{at:+$at }}{word}" in', f'            {known}) at="${{at:+$at }}{word}" ;;', "        esac"]


def _value(found: list[Place], reply: str, anything: str) -> Iterator[str]:
    """Yield the branches for words that are an option's value: `reply` where there is a choice, else `anything`."""
    for place in found:
        for option, values in place.values.items():
            pattern = f'"{place.path} {option}"'
            yield f"        {pattern}) {reply.format(' '.join(values))}; return ;;" if values else f"        {pattern}) {anything} ;;"


def bash(found: list[Place]) -> str:
    """Return the script for bash: source it, or put it where bash-completion looks."""
    lines = [
        "# bash completion for bay0; made by `bay0 completion bash`",
        "_bay0() {",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at="" word words="" i',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        word="${COMP_WORDS[i]}"',
        '        [ "$word" = -- ] && return',
        *_walk(found, "$word"),
        "    done",
        '    case "$at $prev" in',
        *_value(found, 'mapfile -t COMPREPLY < <(compgen -W "{}" -- "$cur")', "return"),
        "    esac",
        '    case "$at" in',
    ]
    for place in found:
        names = f" $({NAMES})" if place.names else ""
        lines.append(f'        "{place.path}") words="{" ".join(place.words)}{names}" ;;')
    files = "|".join(f'"{p.path}"' for p in found if p.files)
    lines += [
        "    esac",
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")',
        '    case "$at" in',
        f'        {files}) mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -f -- "$cur") ;;',
        "    esac",
        "}",
        "complete -o default -F _bay0 bay0",
    ]
    return "\n".join(lines) + "\n"


def zsh(found: list[Place]) -> str:
    """Return the script for zsh: a file called _bay0 in a folder of $fpath."""
    lines = [
        "#compdef bay0",
        "# made by `bay0 completion zsh`",
        "_bay0() {",
        '    local at="" word i prev="${words[CURRENT-1]}"',
        "    local -a choices",
        "    for ((i = 2; i < CURRENT; i++)); do",
        '        word="${words[i]}"',
        '        [[ "$word" == -- ]] && { _files; return }',
        *_walk(found, "$word"),
        "    done",
        '    case "$at $prev" in',
        *_value(found, "compadd -- {}", "_files; return"),
        "    esac",
        '    case "$at" in',
    ]
    for place in found:
        words = " ".join(f"'{word}:{about}'" if about else f"'{word}'" for word, about in place.words.items())
        lines += [f'        "{place.path}")', f"            choices=({words})", "            _describe -o 'bay0' choices"]
        if place.names:
            lines.append(f"            compadd -X 'personas' -- ${{(f)\"$({NAMES})\"}}")
        if place.files:
            lines.append("            _files")
        lines.append("            ;;")
    lines += ["    esac", "}", 'if [ "$funcstack[1]" = _bay0 ]; then _bay0 "$@"; else compdef _bay0 bay0; fi']
    return "\n".join(lines) + "\n"


def fish(found: list[Place]) -> str:
    """Return the script for fish: a file bay0.fish in ~/.config/fish/completions."""
    known = " ".join(f"'{p.path}'" for p in found if p.path)
    lines = [
        "# made by `bay0 completion fish`",
        "function __bay0_at",
        "    set -l at ''",
        "    for word in (commandline -opc)[2..-1]",
        '        test "$word" = --; and return 1',
        f'        contains -- (string trim "$at $word") {known}',
        '        and set at (string trim "$at $word")',
        "    end",
        '    test "$at" = "$argv"',
        "end",
        "complete -c bay0 -f",
    ]
    for place in found:
        here = f"complete -c bay0 -n '__bay0_at {place.path}'" if place.path else "complete -c bay0 -n '__bay0_at '"
        for word, about in place.words.items():
            lines.append(f"{here} {_fish_word(place, word)}" + (f" -d '{about}'" if about else ""))
        if place.names:
            lines.append(f"{here} -a '({NAMES})'")
        if place.files:
            lines.append(f"{here} -F")
    return "\n".join(lines) + "\n"


def _fish_word(place: Place, word: str) -> str:
    if not word.startswith("-"):
        return f"-a {word}"
    found = f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
    if word not in place.values:
        return found
    return f"{found} -x -a '{' '.join(place.values[word])}'" if place.values[word] else f"{found} -r"
