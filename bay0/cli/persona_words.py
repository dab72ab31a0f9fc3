"""The grammar of `bay0 persona`, `focus`, `image`, `top` and `events`: each verb with what it does and an example."""

from __future__ import annotations

from bay0.cli.grammar import JSON, LOG_TIMES, Option, Place, Verb, whole

SAMPLES = "/usr/share/spine-personas"
MANIFEST = "persona.toml"
NAME_HELP = "its name: `work` is short for p://work"
WAIT_MAX_S = 3600
SEVERAL = "Of several each is named with what became of it, one that is refused keeps no other; the status is that of the worst."
BOUNDED = "The answer comes within a bound: status 4 and 'accepted' if it is still on its way then."
LOG = "On a terminal only its colours pass; other control characters are shown, not obeyed. --json gives one object a line."
GOALS = ("running", "paused", "stopped")
WAIT = Option(
    "--wait",
    "wait until it is done (the default), or only until it is accepted",
    default=True,
    negatable=True,
)
LOG_OPTIONS = (
    Option("-f --follow", "go on as lines come; Ctrl-C ends it"),
    Option("-n --lines", "only the last N lines (default: all there is)", "N", default=0, convert=whole),
    *LOG_TIMES,
)
HOME = (
    Option("--home", "also empty the home, after asking for the name"),
    Option("--yes", "do not ask (for scripts)"),
)


def _name(many: str = "", about: str = NAME_HELP) -> Place:
    return Place("persona", about, "NAME", many=many, of="personas")


def _names(about: str = "their names; `test-*` is each that begins so, `?` is one character") -> Place:
    return Place("personas", about, "NAME", many="*", of="personas")


def seconds(text: str) -> float:
    """Return a time in seconds, at most an hour."""
    try:
        found = float(text)
    except ValueError:
        raise ValueError("seconds, 0 to 3600") from None
    if not 0 <= found <= WAIT_MAX_S:
        raise ValueError("seconds, 0 to 3600")
    return found


def _move(word: str, about: str, more: str, *further: Option) -> Verb:
    other = "test-* --home" if HOME[0] in further else "--all"
    return Verb(
        about, "persona_many:move", JSON, WAIT, *further, _names(), more=f"{more} {SEVERAL}", sets={"move": word},
        example=f"bay0 persona {word} work\nbay0 persona {word} work play --no-wait\nbay0 persona {word} {other}",
    )  # fmt: skip


PERSONA = {
    "create": Verb(
        "make a persona of a manifest; it is not started", "persona_make:create", JSON,
        Option("--file", "the manifest; - reads it from stdin", "TOML"),
        Option("--from", "no manifest: as a copy of this persona or snapshot, as `clone` makes one", "NAME"),
        Option("--image", "no manifest: this image, and the defaults for everything else", "IMAGE"),
        Place("source", "its name, or a folder that is called so and holds its persona.toml", "NAME|FOLDER", many="?", of="files"),
        more=f"A bare NAME without --file looks for {SAMPLES}/NAME/{MANIFEST}; a folder gives the persona its own name.",
        example=(
            "bay0 persona create work                    # the sample of that name\n"
            "bay0 persona create personas/work           # your folder with a persona.toml\n"
            "bay0 persona create play --file persona.toml\n"
            "bay0 persona create try --image localhost/shell:latest\n"
            "bay0 persona create try --from work"
        ),
    ),
    "clone": Verb(
        "make a persona as a copy of another: its manifest and its home", "persona_copy:clone", JSON,
        Place("source", "who is copied, a persona or a snapshot (work@3); one that runs is frozen for as long as that takes", "NAME", of="personas"),
        Place("persona", "the name of the new one", "NEW"),
        more=(
            "Owners, modes, times, extended attributes, hard links and holes are kept; what a container wrote outside its home is not copied. "
            "It is there whole or not at all, also after a power cut. Room is looked for first. A start or a thaw of NAME meanwhile ends the "
            "copy, and so do Ctrl-C and `bay0 persona stop NEW`. A device node in the home is refused."
        ),
        example="bay0 persona clone work try\nbay0 persona clone work@3 try",
    ),
    "snapshot": Verb(
        "keep the home and the manifest of a persona as they are now", "persona_snapshot:snapshot", JSON,
        Option("--note", "a line that says what it is", "TEXT"),
        Option("--keep", "then delete the oldest of its snapshots, so that N are left", "N", default=0, convert=whole),
        _name(),
        more=(
            "It is copied like a clone is: of one that runs while it is frozen, there whole or not at all. It takes as much room as the "
            "home does. What a container wrote outside the home is not part of it."
        ),
        example="bay0 persona snapshot work --note before-the-update\nbay0 persona snapshot work --keep 7",
    ),
    "snapshots": Verb(
        "list snapshots, of one persona or of all", "persona_snapshot:list_all", JSON, _name("?"),
        more="A snapshot stays when its persona is removed: create one of that name, and it can go back.",
        example="bay0 persona snapshots work",
    ),
    "restore": Verb(
        "bring a stopped persona back to a snapshot: its home and its manifest", "persona_snapshot:restore", JSON,
        Option("--yes", "do not ask (for scripts)"),
        Place("persona", "work@3 is that snapshot, work the newest", "NAME[@NUMBER]", of="personas"),
        more=(
            "What is in the home now gives way for good: take a snapshot of it first if you may want it back. After a power cut it is all of "
            "one time or all of the other. Ctrl-C and `bay0 persona stop` leave it as it is until all of it has been copied."
        ),
        example="bay0 persona restore work@3\nbay0 persona restore work --yes",
    ),
    "drop": Verb(
        "delete snapshots", "persona_snapshot:drop", JSON,
        Place("snapshots", "as `bay0 persona snapshots` names them: work@3", "NAME@NUMBER", many="*"),
        example="bay0 persona drop work@3 work@4",
    ),
    "cp": Verb(
        "copy a file into a persona's home, or out of it", "persona_carry:cp", JSON,
        Place("source", "a file here, - for stdin, or NAME:PATH", "FILE|NAME:PATH", of="files"),
        Place("target", "the other of the two: a file, a folder, or - for stdout", "NAME:PATH|FILE", of="files"),
        more=(
            "PATH is in the home: as the persona sees it (/home/work/notes), or from the home on (notes). It may run meanwhile: its links lead no "
            "further than its home, and whoever reads a file sees the old one or the new one. What is brought in belongs to the owner of its folder."
        ),
        example="bay0 persona cp notes.txt work:notes.txt\nbay0 persona cp work:/home/work/notes.txt -",
    ),
    "export": Verb(
        "write a persona into an archive: its manifest and its home", "persona_archive:export", JSON,
        Place("source", "a persona, or a snapshot (work@3)", "NAME", of="personas"),
        Place("file", "a new file; - writes to stdout", "FILE", of="files"),
        more=(
            "A tar (pax) with owners, modes, times, attributes, hard links and holes, which GNU tar reads too; its last member is a checksum. "
            "Of one that runs a snapshot is taken for it and deleted again. The image is not in it (`podman save`), sockets are left out."
        ),
        example="bay0 persona export work /tmp/work.tar\nbay0 persona export work@3 -",
    ),
    "import": Verb(
        "make a persona of an archive that `export` wrote", "persona_archive:bring", JSON,
        Option("--as", "another name than the archive's", "NAME"),
        Option("--accept", "it may have what its manifest asks for: the AI, the screen, capabilities, namespaces, a start with the machine"),
        Place("file", "the archive; - reads it from stdin, at most half of what is free on /persist", "FILE", of="files"),
        more=(
            "It is there whole or not at all, and only if the checksum is right. What its manifest asks for beyond a home and limits "
            "is named, and refused without --accept. It is not started."
        ),
        example="bay0 persona import /tmp/work.tar --as try\nbay0 persona import - --accept",
    ),
    "list": Verb(
        "list all personas; * marks the active one", "persona:list_all", JSON,
        Option("--names", "only the short names, and no complaint without a spine (for shell completion)"),
        more="BEHIND: what it does while another one is in front, `freeze` or `run`. SINCE: how long it has been in its state.",
        example="bay0 persona list",
    ),
    "show": Verb(
        "show one persona, why it is in its state, and what can be done next", "persona:show", JSON,
        Option("--manifest", "only what it is made of, as TOML: `bay0 persona create OTHER --file -` takes it"), _name(),
        example="bay0 persona show work\nbay0 persona show work --manifest",
    ),
    "set": Verb(
        "change what a persona is made of, key by key", "persona_change:change", JSON,
        Option("--unset", "give a key its default again, or drop one of the environment; may be repeated", "KEY", append=True),
        _name(), Place("changes", "what to change: memory=1G cpus=2 environment.LANG=C", "KEY=VALUE", many="*"),
        more=(
            "The answer says when each key counts. Of one that runs memory, cpus and pids are changed at once; a smaller memory is refused "
            "while it uses more. What is looked up when it is needed (restart, retries, stop_s, autostart, description, behind) counts from "
            "then on, everything else at the next start."
        ),
        example=(
            "bay0 persona set work memory=1G cpus=2\nbay0 persona set work environment.LANG=C --unset user\n"
            "bay0 persona set work 'command=[\"sleep\", \"60\"]'"
        ),
    ),
    "edit": Verb(
        "change a manifest in an editor: $VISUAL, $EDITOR or vi", "persona_change:edit", JSON, _name(),
        more="Mistakes are named with their lines, and it can be edited again. If it was changed by somebody else meanwhile, nothing is.",
        example="bay0 persona edit work",
    ),
    "history": Verb(
        "print the journal of a persona, from the disk", "persona_own:history", JSON,
        Option("-n --lines", "the last N rows (default 50, at most 300)", "N", default=50, convert=whole),
        _name(), example="bay0 persona history work -n 20",
    ),
    "graph": Verb(
        "draw the state diagram of personas, from the table itself", "persona_own:graph",
        Option("--format", "svg needs Graphviz (default mermaid)", "FORM", default="mermaid", choices=("mermaid", "dot", "svg")),
        Option("--all", "one picture with every persona's name at its state"),
        _name("?", "mark this persona's state in it"),
        example=(
            "bay0 persona graph         # needs no spine\n"
            "bay0 persona graph work    # its state marked, its last steps as comments\n"
            "bay0 persona graph --all --format dot"
        ),
    ),
    "start": _move(
        "start", "start personas", f"Status 1 if one ended in failed; the reason is printed. {BOUNDED}",
        Option("--all", "every persona that is stopped or failed"),
    ),
    "stop": _move("stop", "stop personas: TERM, their grace, then KILL", BOUNDED, Option("--all", "every persona that is not stopped")),
    "restart": _move(
        "restart", "stop personas that run, then start them", f"One that is stopped is only started. {BOUNDED}",
        Option("--all", "every persona that is not stopped"),
    ),
    "pause": _move(
        "pause", "freeze personas: they keep their memory and get no processor", BOUNDED, Option("--all", "every persona that runs")
    ),
    "resume": _move("resume", "let paused personas go on", BOUNDED, Option("--all", "every persona that is paused")),
    "wait": Verb(
        "wait until personas run, are paused or are stopped", "persona_many:wait", JSON,
        Option("--for", "what to wait for (default running); a failed one counts as stopped", "STATE", default="running", choices=GOALS),
        Option("--timeout", "wait no longer (default 60)", "SECONDS", default=60.0, convert=seconds),
        _names(),
        more=(
            "Status 0 once each of them is, 4 if the time is over first; 1 at once if one that is waited for to run "
            "has failed, or was removed."
        ),
        example="bay0 persona start work --no-wait && bay0 persona wait work\nbay0 persona wait 'test-*' --for stopped --timeout 10",
    ),
    "reset": _move(
        "reset", "stop personas, forget their failures and their containers; the next start gets fresh ones",
        f"Homes are kept unless --home is given. {BOUNDED}", *HOME,
    ),
    "remove": _move(
        "remove", "forget stopped personas", "A home stays on the disk, for another persona of that name, unless --home is given.", *HOME
    ),
    "shell": Verb(
        "run a shell, or another command, in a running persona", "persona_own:shell", _name(),
        Place("command", "the command and its arguments, after -- (default /bin/sh)", "CMD", many="*"),
        more="It runs in this command's own process, by `podman exec`; the exit status is the command's.",
        example="bay0 persona shell work\nbay0 persona shell work -- ls -l /",
    ),
    "exec": Verb(
        "run one command in a running persona, for scripts", "persona_own:run",
        Option("--env", "a variable for it; may be repeated", "NAME=VALUE", append=True),
        Option("--user", "as this user of the persona's, or USER:GROUP (default: the one that it runs as)", "USER"),
        Option("--workdir", "in this directory of the persona's (default: its home)", "DIR"),
        Option("--tty", "give it this terminal; its stdout and stderr are one then"),
        _name(), Place("command", "the command and its arguments, after --", "CMD", many="*"),
        more=(
            "Its stdin, stdout and stderr are those of this command, each apart. The exit status is the command's: 126 if it cannot be "
            "run, 127 if there is none of that name, 128 + N if signal N ended it, 125 if podman failed. In a loop that reads "
            "stdin give it </dev/null."
        ),
        example="bay0 persona exec work -- ls -l /\nbay0 persona exec work --env LANG=C --workdir /tmp -- sh -c 'exit 7'",
    ),
    "net": Verb(
        "show a persona's way out: its address, what its cable has carried, and what was let through or refused", "net:persona", JSON,
        _name(),
        more=(
            'Only of one that runs and whose manifest says network = "net". `refused` and `private` count what its manifest does not allow. '
            "Nobody outside can open a connection to a persona."
        ),
        example="bay0 persona net work",
    ),
    "stats": Verb(
        "show what personas use: processors, memory, pressure, disk, processes", "stats:personas", JSON,
        Option("--watch", "go on, every 2 seconds; Ctrl-C ends it"), _names(),
        more=(
            "Without a name of all that have a container. Read from the kernel's cgroup files in this command's own process. Shares are of the "
            "time between two looks, half a second if not watched; 100 % is one processor. MEM is without the cache of files. "
            "PRESSURE is the share of the last 10 s in which something of it waited for a processor, for memory, for a disk. --json gives bytes and "
            "microseconds, with --watch one object a line."
        ),
        example="bay0 persona stats\nbay0 persona stats work 'test-*' --watch",
    ),
    "logs": Verb(
        "print what a persona wrote, also when it is stopped", "persona_own:logs", JSON, *LOG_OPTIONS, _name(),
        more=LOG, example="bay0 persona logs work -n 20 -f",
    ),
}  # fmt: skip
IMAGE = {
    "load": Verb(
        "bring in an archive made by scripts/mkpersona.sh or `podman save`", "image:load", JSON,
        Place("file", "the archive; - reads it from stdin, at most half of what is free on /persist", of="files"),
        more="From the host, onto a disk that is there: scripts/mkpersist.sh --add shell.tar persist.img, while no spine runs on it.",
        example="bay0 image load /persist/images/shell.tar\nxz -dc shell.tar.xz | bay0 image load -",
    ),
    "list": Verb("list the images; those built in survive everything", "image:list_all", JSON, example="bay0 image list"),
    "remove": Verb(
        "remove an image", "image:remove", JSON, Place("image", "its name, as `bay0 image list` shows it", "NAME", of="images"),
        example="bay0 image remove localhost/shell:latest",
    ),
}  # fmt: skip
VERBS = {
    "persona": Verb(
        "make, run, watch and remove personas", below=PERSONA, example="bay0 persona create work\nbay0 persona start work",
        aliases={
            "ls": "list", "ps": "list", "rm": "remove", "enter": "shell", "top": "stats", "log": "logs", "halt": "stop", "copy": "clone",
        },
    ),
    "focus": Verb(
        "make a persona the active one: it goes on, the others are paused; without a name tell which it is", "persona:focus", JSON, WAIT,
        _name("?"), more=BOUNDED, example="bay0 focus work\nbay0 focus",
    ),
    "image": Verb(
        "list, load and remove the images personas are made of", below=IMAGE, example="bay0 image list", aliases={"ls": "list", "rm": "remove"}
    ),
    "top": Verb(
        "show what everything on the machine uses, who uses most first", "stats:top", JSON,
        Option("--once", "look once, as with --json and where stdout is no terminal"),
        more="Personas, then the spine's own parts: PID 1, services, commands, the AI. `bay0 persona stats --help` explains the columns.",
        example="bay0 top\nbay0 top --json",
    ),
    "events": Verb(
        "print the steps of all machines, from the log of this boot", "persona_own:events", JSON,
        Option("-f --follow", "go on as they come; Ctrl-C ends it"),
        Option("--machine", "only of this one: work, p://work, sys://console, boot, storage", "NAME"),
        Option("-n --lines", "only the last N steps (default: all there are)", "N", default=0, convert=whole),
        more="--json gives one object a line.", example="bay0 events -f --machine work",
    ),
}  # fmt: skip
