"""Completion scripts: they hold the whole grammar, their shells can read them, and bash offers what belongs where the word stands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from kit import BUILT_ROOT, not_built

from bay0.cli import main as cli
from bay0.cli import verbs

TOP = Path(__file__).parents[2]
SHELLS = ("bash", "zsh", "fish")
Captured = pytest.CaptureFixture[str]


def verbs_of(*path: str) -> set[str]:
    verb = verbs.root()
    for word in path:
        verb = verb.below[word]
    return set(verb.below) | set(verb.aliases)


def made(shell: str, capsys: Captured) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_holds_every_verb_and_asks_for_names(shell: str, capsys: Captured) -> None:
    script = made(shell, capsys)
    for path in ((), ("persona",), ("image",)):
        for verb in verbs_of(*path):
            assert " ".join([*path, verb]) in script
    assert "bay0 persona list --names" in script


@pytest.mark.host
@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_good_syntax(shell: str, capsys: Captured, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(made(shell, capsys))
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def completed(script: str, words: list[str]) -> list[str]:
    text = (
        script + '\nbay0() { [ "$*" = "persona list --names" ] && printf "%s\\n" work play; }\n'
        f"COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}\n_bay0\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["per"], ["persona"]),
        (["persona", "re"], ["restore", "restart", "resume", "reset", "remove"]),
        (["persona", "start", "w"], ["work"]),
        (["persona", "start", ""], ["--help", "--json", "--wait", "--no-wait", "--all", "work", "play"]),
        (["persona", "start", "--no-wait", "p"], ["play"]),
        (["focus", "p"], ["play"]),
        (["persona", "graph", "--format", ""], ["mermaid", "dot", "svg"]),
        (["persona", "reset", "work", "--h"], ["--help", "--home"]),
        (["completion", "f"], ["fish"]),
        (["storage", "r"], ["retry"]),
        (["storage", "g"], ["grow"]),
        (["persona", "shell", "work", "--", "l"], []),
        (["rm", "w"], ["work"]),
        (["enter", "p"], ["play"]),
        (["persona", "l"], ["list", "logs", "ls", "log"]),
        (["persona", "rm", "work", "--h"], ["--help", "--home"]),
        (["sh"], ["shutdown"]),
        (["help", "js"], ["json"]),
        (["tenant", "configure", "--m"], ["--model"]),
    ],
)
def test_bash_completes_by_where_the_word_stands(words: list[str], offered: list[str], capsys: Captured) -> None:
    assert completed(made("bash", capsys), ["bay0", *words]) == offered


def test_the_script_for_bash_needs_no_dev_fd_which_the_spine_has_not(capsys: Captured) -> None:
    lines = [line.partition("  #")[0] for line in made("bash", capsys).splitlines()]
    assert [line for line in lines if "<(" in line] == []


@pytest.mark.host
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_spines_bash_loads_the_script_at_the_first_tab(capsys: Captured, tmp_path: Path) -> None:
    installed = tmp_path / "bay0"
    installed.write_text(made("bash", capsys))
    setup = (TOP / "scripts/rootfs/etc/bash.bashrc").read_text().replace("/usr/share/bash-completion/completions/bay0", str(installed))
    text = f"{setup}\ncomplete -p bay0; _bay0_load; echo $?; complete -p bay0\n"
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["complete -o default -F _bay0_load bay0", "124", "complete -o default -F _bay0 bay0"]


@pytest.mark.built
def test_the_image_has_the_script_for_bash_as_the_program_prints_it(capsys: Captured) -> None:
    path = BUILT_ROOT / "usr/share/bash-completion/completions/bay0"
    if not BUILT_ROOT.exists():
        not_built("build/rootfs is not there")
    assert path.read_text() == made("bash", capsys)
