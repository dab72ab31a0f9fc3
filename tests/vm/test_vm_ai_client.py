"""The real OpenAI client library, in a persona that was granted AI, through the umbilical (`scripts/mkaiclient.sh` makes its image)."""

from __future__ import annotations

import json
import os

import harness
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.full]

ARCHIVES = [os.path.join(harness.TOP, "build", name) for name in ("spine-ai.tar", "ai-client.tar")]
READY_S = 600  # from init complete, with an image to be loaded: contract, not speed
ANSWER_S = 300
VERB_S = 150
PERSONA = 'image = "localhost/ai-client:1"\nai = true\nmemory = "128M"\n'


def test_the_openai_library_asks_in_one_piece_and_streamed_and_a_persona_without_ai_cannot(folder: str) -> None:
    for archive in ARCHIVES:
        if not os.path.exists(archive):
            harness.skip_or_fail(f"{archive} is missing: build it with scripts/mkai.sh and scripts/mkaiclient.sh")
    disk = f"{folder}/client.img"
    harness.tool("bash", harness.MKPERSIST, "--size", "3G", *(word for archive in ARCHIVES for word in ("--image", archive)), disk)
    with harness.vm(disk, life_s=1500) as spine:
        spine.wait_console(harness.COMPLETE)
        harness.until(lambda: spine.json("bay0 tenant show ai --json")["state"] == "ready", READY_S, "the AI is ready", every_s=1)
        spine.out("bay0 image load /persist/images/ai-client.tar", VERB_S)
        for name, text in (("client", PERSONA), ("plain", PERSONA.replace("ai = true\n", ""))):
            spine.out(f"mkdir -p /tmp/{name}; cat >/tmp/{name}/persona.toml <<'END'\n{text}END\nbay0 persona create /tmp/{name}")
            spine.sh(f"bay0 persona start {name}", VERB_S)
        said = harness.until(lambda: spine.sh("bay0 persona logs client").stdout, ANSWER_S, "the client has answered", every_s=1)
        answer = json.loads(next(line[line.index("{") :] for line in said.splitlines() if "{" in line))
        assert answer["model"] == "SmolLM2-135M-Instruct"
        assert answer["answer"].strip()
        assert 0 < answer["tokens"] <= 12
        assert answer["pieces"] > 1, "it was streamed"
        assert answer["streamed"].strip()
        refused = harness.until(lambda: spine.sh("bay0 persona logs plain").stdout, ANSWER_S, "the other one has given up", every_s=1)
        assert "APIConnectionError" in refused
