"""The frozen program's first module: PyInstaller wants a script, bay0 has one main().

It also makes the start and the end cheaper, for PID 1 and for each verb: a module of this folder is a .pyc or
an extension, so that no package is looked for under five other names first; and a verb that is done ends at
once, without taking the interpreter apart.
"""

import _frozen_importlib_external as machinery
import _imp
import posix
import sys

compiled = (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES)
extensions = (machinery.ExtensionFileLoader, _imp.extension_suffixes())
sys.path_hooks[:] = [machinery.FileFinder.path_hook(compiled, extensions)]
sys.path_importer_cache.clear()

from bay0.__main__ import main  # noqa: E402 - found as said above

status = main()
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        stream.flush()
posix._exit(status)  # noqa: SLF001 - its public name is of `os`, which a short verb does not load
