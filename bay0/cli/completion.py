"""Completion scripts for bash, zsh and fish, made of the command line's own grammar.

A word is completed by where it stands: after which verbs, and after which option. Names of personas come from `bay0 persona list --names`,
which says nothing without a spine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from attrs import field, frozen

from bay0.cli import topics, verbs
from bay0.cli.grammar import Options, Verb

SHELLS = ("bash", "zsh", "fish")
NAMES = "bay0 persona list --names 2>/dev/null"


@frozen
class Place:
    """One verb: `path` as it is typed after `bay0`, what may follow it."""

    path: str
    about: str
    words: dict[str, str] = field(factory=dict)  # verbs, options and fixed words -> help
    values: dict[str, tuple[str, ...]] = field(factory=dict)  # option that takes a value -> the values there are, none: anything
    names: bool = False  # personas come here
    files: bool = False


def places(verb: Verb, path: str = "") -> Iterator[Place]:
    """Yield the place of `verb` and those of the verbs below it; a verb has one more under each of its aliases."""
    words = {word: _line(option.help) for option in verb.options for word in option.words() if word != "-h"}
    values = {word: tuple(option.choices) for option in verb.options if option.metavar for word in option.words()}
    words |= {choice: _line(place.help) for place in verb.places for choice in place.choices}
    of = {place.of for place in verb.places}
    if "topics" in of:
        words |= dict.fromkeys((*verbs.WORDS, *topics.TOPICS), "")
    below: list[tuple[str, Verb]] = []
    if verb.below is not None:
        below = [*verb.below.items(), *((alias, _reached(verb, meant)) for alias, meant in verb.aliases.items())]
        words |= {word: _line(each.about) for word, each in below}
    yield Place(path, _line(verb.about), words, values, names="personas" in of, files="files" in of)
    for word, each in below:
        yield from places(each, f"{path} {word}".strip())


def _reached(group: Verb, words: str) -> Verb:
    """Return the verb that an alias stands for: `remove`, or from the top `persona remove`."""
    for word in words.split():
        group = (group.below or {})[word]
    return group


def _line(text: str | None) -> str:
    """Return help on one line, without what a shell's quotes would trip over."""
    return "".join(c for c in " ".join((text or "").split()) if c not in "'\"`\\$[]:")


def run(options: Options) -> int:
    """Print the script for a shell."""
    found = list(places(verbs.root()))
    sys.stdout.write({"bash": bash, "zsh": zsh, "fish": fish}[options.shell](found))
    return 0


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
        "_bay0_offer() {  # no <(...), which needs /dev/fd: earlier spines had none",
        "    local line",
        '    while IFS= read -r line; do [ -z "$line" ] || COMPREPLY+=("$line"); done <<<"$1"',
        "}",
        "_bay0() {",
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at="" word words="" i',
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        word="${COMP_WORDS[i]}"',
        '        [ "$word" = -- ] && return',
        *_walk(found, "$word"),
        "    done",
        '    case "$at $prev" in',
        *_value(found, '_bay0_offer "$(compgen -W "{}" -- "$cur")"', "return"),
        "    esac",
        '    case "$at" in',
    ]
    for place in found:
        names = f" $({NAMES})" if place.names else ""
        lines.append(f'        "{place.path}") words="{" ".join(place.words)}{names}" ;;')
    files = "|".join(f'"{p.path}"' for p in found if p.files)
    lines += [
        "    esac",
        '    _bay0_offer "$(compgen -W "$words" -- "$cur")"',
        '    case "$at" in',
        f'        {files}) _bay0_offer "$(compgen -f -- "$cur")" ;;',
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
