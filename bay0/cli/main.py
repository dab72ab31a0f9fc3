"""The command line: thin clients of the control socket, and a few verbs that need no spine.

Exit status: 0 done; 1 refused or failed; 2 wrong usage; 3 no spine answers; 4 accepted, but not settled
within its bound (bay0 goes on). 130: ended by Ctrl-C; 141: nobody reads its output any more. `bay0 run` and
`bay0 persona shell` give their command's own, `bay0 --validate` its verdict: 0 GREEN, 1 YELLOW, 2 RED.

How long a verb takes before it begins is felt each time. So it loads its own grammar and function only, and
what most verbs pass through (this module, `verbs`, `grammar`, `streams`, `kit`, `client`, `plainjson`)
imports nothing of the standard library but what is built into the interpreter: `posix` for `os`, `_socket`
for `socket`, `_json` for `json`.
"""

from __future__ import annotations

from bay0.base.errors import Bay0Error, NoSpineError, UsageError
from bay0.cli import streams, verbs
from bay0.cli.grammar import HelpWanted, Misuse
from bay0.cli.kit import NO_SPINE, REFUSED, USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bay0.cli.grammar import Options

INTERRUPTED = 130


def function(call: str) -> Callable[[Options], int]:
    """Return the function that a verb names as `module:name`."""
    module, _, name = call.partition(":")
    found: Callable[[Options], int] = getattr(__import__(f"bay0.cli.{module}", fromlist=(name,)), name)
    return found


def main(words: Sequence[str]) -> int:
    """Run one verb and return the exit status."""
    streams.ensure()
    return streams.finish(_main(words))


def _main(words: Sequence[str]) -> int:
    try:
        path, verb, options = verbs.parse(words)
        try:
            return function(verb.call)(options)
        except UsageError as error:
            raise error if isinstance(error, Misuse) else Misuse(str(error), path, verb) from error
    except HelpWanted as wanted:
        from bay0.cli import helptext

        print(helptext.full(wanted.path, wanted.verb))
        return 0
    except Misuse as error:
        from bay0.cli import helptext

        streams.say(helptext.complaint(error))
        return USAGE
    except NoSpineError as error:
        streams.say(str(error))
        return NO_SPINE
    except Bay0Error as error:
        streams.say(str(error))
        return REFUSED
    except BrokenPipeError:  # whoever read our output has enough
        return streams.NO_READER
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        return streams.complain(error)
