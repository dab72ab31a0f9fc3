"""The error tree: one meaning each, and a message that says what to do."""

import errno

# no descriptor or no memory is left: what was asked is not known
NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Bay0Error(Exception):
    """Root of every error bay0 raises on purpose."""


class TableError(Bay0Error):
    """A machine's table contradicts itself; raised while it is imported."""


class UncommittedError(Bay0Error):
    """A machine was asked to move for a step that no journal accepted."""


class RefusedError(Bay0Error):
    """A request was understood and declined; nothing was changed."""


class SpawnError(Bay0Error):
    """A process could not be started at all."""


class StorageError(Bay0Error):
    """The state worker could not do what it was asked.

    `code` is what the storage machine acts on: ``no_device``, ``unmountable``, ``unwritable``, ``newer``, ``damaged``, ``full``,
    ``busy``, ``misplaced`` (something else is where a file belongs), ``fault``, ``unsure`` (a fault, and what was
    to be kept may be there).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BootEnvError(Bay0Error):
    """A boot environment (BGENV.DAT) is damaged, or was to hold what it cannot; says what. Nothing was written."""


class UkiError(Bay0Error):
    """A file is no unified kernel image of a spine; says why, in words that follow "FILE cannot be used: ". Nothing was changed."""


class GptError(Bay0Error):
    """A disk's partition table is none, is damaged, or cannot be changed as was asked; says why. Nothing was written."""


class UsageError(Bay0Error):
    """The command line was understood by argparse but makes no sense; exit status 2."""


class SlotError(Bay0Error):
    """A slot of the disk is not what it should be, or was to hold what it cannot; says what."""


class NoSpineError(Bay0Error):
    """No bay0 answers on the control socket; exit status 3."""


class BadNameError(Bay0Error):
    """A text is not the name of a persona or tenant; says which character, at which position, and why. Nothing was changed."""


class BadDigestError(Bay0Error):
    """A text is not a content digest as bay0 writes them. Nothing was changed."""


class ManifestError(Bay0Error):
    """A manifest cannot be used; its message has one line for each mistake, `source:line: key: what is wrong`. Nothing was changed."""


class PodmanError(Bay0Error):
    """podman said something that cannot be understood."""
