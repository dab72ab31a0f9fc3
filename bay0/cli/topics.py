"""`bay0 help [VERB|TOPIC]`, and the topics: what a stranger asks first, a screen each."""

from __future__ import annotations

from bay0.cli import helptext, verbs
from bay0.cli.grammar import HelpWanted, Misuse, Options, read

TOPICS = {
    "personas": """\
A persona is a container with a name, p://work, and a home that lasts. `work` is short for p://work.

  bay0 persona create work    make it, of a sample; a FOLDER with a persona.toml makes your own
  bay0 persona start work     run it
  bay0 persona shell work     be in it (also: bay0 enter work); leave with exit
  bay0 focus work             this one goes on, the others are frozen
  bay0 persona list           what there is (also: bay0 ls)
  bay0 persona show work      why it is as it is, and what can be done next
  bay0 persona reset work     a fresh container; its home is kept, unless --home
  bay0 persona remove work    forget it (also: bay0 rm work)

No crash leaves one half started: after a boot all are stopped, but those with autostart = true.""",
    "storage": """\
What lasts is on /persist, one disk: the journal, images, and homes of personas. The spine itself is
read-only.

  bay0 storage          is the disk well, and how much is free
  bay0 storage retry    it was mended: open it again
  bay0 storage grow     the disk was made larger: use all of it

Without a disk, or with a sick one, the boot is `dirty`: bay0 works from memory,
and refuses what it cannot keep.""",
    "ai": """\
A language model in a container without a network. It starts when it is asked to, or with the spine.

  bay0 tenant start ai        load it; bay0 tenant show ai tells how it goes
  bay0 ask "..."              ask it from the console
  bay0 tenant configure ai --model FILE    a model of your own, a GGUF file below /persist

A persona with ai = true in its manifest finds it at /run/ai/ai.sock.""",
    "boot": """\
PID 1 is bay0. A boot is a machine of states, each with a deadline; each step is written down with its reason.

  bay0 boot             the steps of this boot and earlier ones, and how long each took
  bay0 --validate       is all well: GREEN, YELLOW or RED
  bay0 doctor           what is wrong, and which command helps
  bay0 log -f           every decision as it happens
  bay0 poweroff, bay0 reboot    in order; --force if that hangs""",
    "json": """\
--json prints the answer as PID 1 gave it. Keys do not change within a version; one that is renamed stays for
the next. Times end in _ms (milliseconds since the kernel started) or _s, sizes are in bytes.

  bay0 persona list --json
  bay0 rpc                    whole JSON-RPC 2.0 requests from stdin, one a line
  bay0 log --json, bay0 events --json    one object a line""",
    "status": """\
The exit status of every verb:

  0    done
  1    refused, or failed; the reason is on stderr
  2    the words make no sense; how the verb is used is on stderr
  3    no spine answers
  4    accepted and on its way, but not done within its bound
  130  ended by Ctrl-C      141  nobody reads the output any more

`bay0 run` and `bay0 persona shell` give their command's own. `bay0 --validate`: 0 GREEN, 1 YELLOW, 2 RED.""",
}


def run(options: Options) -> int:
    """Explain a verb, a topic, or with one word both."""
    words = list(options.words)
    topic = TOPICS.get(words[0]) if len(words) == 1 else None
    words[:1] = verbs.ALIASES.get(words[0], words[:1]) if words else ["--help"]
    if words[0] in verbs.WORDS:
        try:
            read((words[0],), verbs.verb(words[0]), [*words[1:], "--help"])
        except HelpWanted as wanted:
            print(helptext.full(wanted.path, wanted.verb) + (f"\n\n{topic}" if topic else ""))
    elif topic:
        print(topic)
    else:
        known = [*verbs.WORDS, *verbs.ALIASES, *TOPICS]
        raise Misuse(
            f"there is no verb or topic {words[0]!r}", ("help",), verbs.verb("help"), words[0], known
        )
    return 0
