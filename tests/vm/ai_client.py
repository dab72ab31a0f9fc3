"""The OpenAI client library speaks to the AI: run inside the image that scripts/mkaiclient.sh makes of this file.

Usage: client [SOCKET [TOKENS]]. Prints one JSON object: what was answered in one piece, what came in how many pieces, which model.
Status 1 with the library's own words if it was refused.
"""

import json
import sys
import time

import httpx2
import openai

SOCKET, TOKENS = "/run/ai/ai.sock", 12
QUESTION = [{"role": "user", "content": "Say hello."}]


def main() -> int:
    """Ask twice."""
    socket, tokens = (sys.argv[1:2] or [SOCKET])[0], int((sys.argv[2:3] or [TOKENS])[0])
    transport = httpx2.HTTPTransport(uds=socket, verify=False)  # a unix socket has no certificate, and this image no authorities
    client = openai.OpenAI(base_url="http://ai/v1", api_key="none", max_retries=0, timeout=300, http_client=httpx2.Client(transport=transport))
    try:
        model = client.models.list().data[0].id
        started = time.monotonic()
        whole = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=tokens)
        whole_s = time.monotonic() - started
        pieces = [
            chunk.choices[0].delta.content
            for chunk in client.chat.completions.create(model=model, messages=QUESTION, max_tokens=tokens, stream=True)
            if chunk.choices and chunk.choices[0].delta.content
        ]
    except openai.APIError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""  # the library says no more than "Connection error."
        print(f"client: {type(error).__name__}: {error}{cause}", file=sys.stderr)
        return 1
    answer, used = whole.choices[0].message.content, whole.usage.completion_tokens
    streamed = {"streamed": "".join(pieces), "pieces": len(pieces)}
    print(json.dumps({"model": model, "answer": answer, "tokens": used, "seconds": round(whole_s, 2)} | streamed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
