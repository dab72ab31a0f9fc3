"""`bay0 persona create`: a manifest from a sample, a folder, a file, stdin or an image's name."""

from __future__ import annotations

import json
import os

from bay0.base.errors import RefusedError, UsageError
from bay0.cli import client, inputs, samples
from bay0.cli import persona_text as report
from bay0.cli.kit import DONE, emit
from bay0.cli.persona import name_of
from bay0.cli.persona_words import MANIFEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bay0.cli.grammar import Options
    from bay0.personas.manifest import Manifest


MANIFEST_MAX = 64 << 10  # bytes; twice what PID 1 takes, for comments


def _source(given: str | None, file: str | None) -> tuple[str, str]:
    """Return the name that is meant and the manifest's path; `given` may be a name, a folder or a manifest."""
    if given is not None and "://" not in given and ("/" in given or given in (".", "..") or given.endswith(".toml")):
        if file is not None:
            raise UsageError(f"{given} is a path and --file gives another: with --file say only the name")
        path = os.path.join(given, MANIFEST) if os.path.isdir(given) else given
        return _folder(path), path
    if given is not None:
        return given, file or os.path.join(samples.PLACE, name_of(given).label, MANIFEST)
    if file in (None, inputs.STDIN):
        raise UsageError("say which: `bay0 persona create work` takes a sample, `bay0 persona create personas/work` a folder of your own")
    return _folder(file), file


def _folder(path: str) -> str:
    return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _manifest(path: str) -> Manifest:
    from bay0.personas import manifest

    try:
        text = inputs.text(path, MANIFEST_MAX, "manifest")
    except OSError as error:
        say = f"no manifest at {path} ({error.strerror}). `bay0 persona create FOLDER` takes FOLDER/{MANIFEST}, --file any file"
        if path.startswith(samples.PLACE):
            from bay0.cli import near

            there = samples.names()[0]
            meant = near.words(os.path.basename(os.path.dirname(path)), there)
            say += f"; samples in {samples.PLACE}: {', '.join(there) or 'none'}"
            say += f". Did you mean {meant[0]}?" if meant else ""
        raise RefusedError(say) from error
    return manifest.load(text, inputs.shown(path))


def create(options: Options) -> int:
    """Send a manifest under a name; both are checked here first, and by PID 1 again."""
    template = getattr(options, "from")
    if template is not None:
        if options.file is not None or options.image is not None or options.source is None:
            raise UsageError("--from stands in for a manifest: give it with a name, and without --file and --image")
        from bay0.cli import persona_copy

        return persona_copy.made_of(options, template, name_of(options.source).semantic)
    if options.image is not None:
        if options.file is not None or options.source is None:
            raise UsageError("--image stands in for a manifest: give it with a name and without --file")
        from bay0.personas import manifest

        name, wanted = name_of(options.source), manifest.load(f"image = {json.dumps(options.image, ensure_ascii=False)}\n", "--image")
    else:
        text, path = _source(options.source, options.file)
        name = name_of(text)
        wanted = _manifest(path)
    made = client.call("persona.create", name=name.semantic, manifest=wanted.to_wire())
    emit(options, made, f"{made['name']} is created and {made['state']}; {report.what_next(made)}")
    return DONE
