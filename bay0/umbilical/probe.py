"""PID 1's own questions to the AI's server: is it healthy, and does it make a token? Part of the forwarder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import define

from bay0.umbilical import http
from bay0.umbilical.http import Refusal

if TYPE_CHECKING:
    from bay0.umbilical.forwarder import Forwarder
    from bay0.umbilical.upstream import Flight

AGAIN_S = 0.25
BODY_MAX = 64 << 10
QUESTION = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0, "stream": False, "cache_prompt": False}


@define(eq=False, repr=False)
class Probe:
    """`check`: one look at /health. `warm`: until that is well, then one token. `within` seconds for all; answers once."""

    house: Forwarder
    number: int
    within: float
    warm: bool
    until: float = 0.0
    flight: Flight | None = None
    _asked: float = 0.0  # when the token was asked for; 0 before that
    _status: int = 0
    _body: bytes = b""
    _last: str = "it was not reached"
    _over: bool = False

    def begin(self) -> None:
        """Ask."""
        self.until = self.house.reactor.clock() + self.within
        self._ask(http.request(http.HEALTH))
        self.house.look_after()

    def _ask(self, request: bytes) -> None:
        if self._over:
            return
        self._status, self._body = 0, b""
        left = max(0.1, self.until - self.house.reactor.clock())
        self.flight = self.house.flight(request, self, self._landed, left)
        self.flight.begin()

    def _landed(self) -> None:
        self.flight = None

    def head(self, reader: http.AnswerReader) -> None:
        """Take the status."""
        self._status = reader.status

    def data(self, data: bytes) -> None:
        """Take a piece of the body, as far as it matters."""
        self._body = (self._body + data)[:BODY_MAX]

    def end(self) -> None:
        """Judge the answer."""
        if self._asked:
            self._judge_token()
        elif self._status != 200:  # noqa: PLR2004 - OK
            self._again(f"its /health answers with status {self._status}")
        elif self.warm:
            self._asked = self.house.reactor.clock()
            self._ask(http.request(http.CHAT, json.dumps(QUESTION).encode()))
        else:
            self._done(ok=True, why="")

    def _judge_token(self) -> None:
        took = self.house.reactor.clock() - self._asked
        try:
            made = http.read_json(self._body)["usage"]["completion_tokens"] >= 1
        except (Refusal, KeyError, TypeError):
            made = False
        if self._status == 200 and made:  # noqa: PLR2004 - OK
            self._done(ok=True, why="", first_token_s=round(took, 3))
        else:
            self._done(ok=False, why=f"it was asked for a token and answered with status {self._status}, without one")

    def failed(self, refusal: Refusal) -> None:
        """Try again while there is time, unless somebody else answers."""
        if refusal.code == "impostor" or self._asked:
            self._done(ok=False, why=refusal.message)
        else:
            self._again(refusal.message)

    def _again(self, why: str) -> None:
        self._last = why
        if not self.warm:
            self._done(ok=False, why=why)
        elif not self._over:
            self.house.reactor.call_later(AGAIN_S, lambda: self._ask(http.request(http.HEALTH)))

    def look(self, now: float) -> None:
        """See whether its time is up."""
        if self.flight is not None:
            self.flight.look(now)
        if now >= self.until and not self._over:
            self.give_up(f"not ready within {self.within:g} s: {self._last}")

    def give_up(self, why: str) -> None:
        """End it without success."""
        if self.flight is not None:
            self.flight.cancel()
        self._done(ok=False, why=why)

    def _done(self, *, ok: bool, why: str, **more: Any) -> None:
        if not self._over:
            self._over = True
            self.house.probed(self, {"ok": ok, "why": why, **more})
