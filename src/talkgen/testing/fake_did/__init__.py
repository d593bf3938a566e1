"""A stand-in for D-ID: a real HTTP server on loopback, with a ledger and a script of faults.

It behaves as the service is documented and observed to behave, takes no money, and needs no
network. Tests of an application use it in place of `https://api.d-id.com`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from talkgen.testing.fake_did._api import Api
from talkgen.testing.fake_did._faults import Fault, FaultScript
from talkgen.testing.fake_did._results import Results
from talkgen.testing.fake_did._server import Server
from talkgen.testing.fake_did._state import Behaviour, Clock, Exchange, Ledger, State

if TYPE_CHECKING:
    from types import TracebackType

    from talkgen._types import JSON

__all__ = ["Behaviour", "Exchange", "FakeDId", "Fault", "Ledger"]


class FakeDId:
    """The stand-in, running between `with` and its end.

        with FakeDId(speed=100) as service:
            generator = DIdGenerator(service.api_key, base_url=service.base_url)

    Attributes:
        api_key: The only key that it takes: in both forms of Basic, and as Bearer.
        base_url: Where it answers.
        behaviour: How it behaves; may be changed at any time.
    """

    def __init__(
        self,
        *,
        speed: float = 1.0,
        credits: float = 1000.0,  # noqa: A002 - the service's word
        api_key: str = "c29tZWJvZHlAZXhhbXBsZS5jb20:fake-secret",
        **behaviour: Any,
    ) -> None:
        """Make a stand-in that does not run yet.

        Args:
            speed: Its seconds in one real second: 100 makes a talk of 12 s in 0.12 s.
            credits: What the account has; one pays for 15 s that have begun.
            api_key: The account's key.
            **behaviour: Fields of `Behaviour`.
        """
        self.api_key = api_key
        self.behaviour = Behaviour(**behaviour)
        self._clock = Clock(speed)
        self._faults = FaultScript()
        self._state = State(self.behaviour, self._clock, credits)
        self._results = Results(self._state)
        self._api = Api(self._state, self._results, api_key)
        self._servers = (
            Server(
                self._api.answer,
                state=self._state,
                faults=self._faults,
                name=lambda request: request.name,
            ),
            Server(
                self._results.answer,
                state=self._state,
                faults=self._faults,
                name=lambda _request: "GET result",
            ),
        )
        self._results.base_url = self._servers[1].base_url

    @property
    def base_url(self) -> str:
        """Where it answers."""
        return self._servers[0].base_url

    @property
    def ledger(self) -> Ledger:
        """What happened so far: talks, credits, uploads, downloads, requests."""
        return self._state.ledger()

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Every request that was carried out, with its answer."""
        with self._state.lock:
            return tuple(self._state.exchanges)

    def fail(self, request: str, fault: Fault, *, times: int = 1, after: int = 0) -> None:
        """Have requests go wrong, after what was scripted for this kind before.

        Args:
            request: Its kind: `POST /images`, `POST /audios`, `POST /talks`, `GET /talks`,
                `GET /talks/{id}`, `DELETE /talks/{id}`, `DELETE /images/{id}`,
                `DELETE /audios/{id}`, `GET /credits`, `GET /tts/voices`, or `GET result`.
            fault: What goes wrong.
            times: How many of them.
            after: How many go well first.
        """
        self._faults.add(request, fault, times=times, after=after)

    def heal(self) -> None:
        """Nothing that was scripted goes wrong any more."""
        self._faults.clear()

    def advance(self, seconds: float) -> None:
        """Jump ahead in time: a day later, links and uploads have expired."""
        self._clock.advance(seconds)

    def ended(self, talk_id: str) -> float:
        """When a talk ended, or will, by `time.monotonic()`."""
        with self._state.lock:
            return self._clock.monotonic(self._state.talks[talk_id].ends)

    def webhook_bodies(self, talk_id: str) -> list[bytes]:
        """What the talk's webhook would be sent, one for each change of its status.

        Nothing is sent: a test hands them to what it tests. Their order and number follow
        `behaviour.webhooks`.
        """
        with self._state.lock:
            talk = self._state.talks[talk_id]
            moments = (talk.created, talk.started, talk.ends)
            bodies: list[JSON] = [self._api.shown(talk, at) for at in moments]
        match self.behaviour.webhooks:
            case "none":
                bodies = []
            case "twice":
                bodies = [body for body in bodies for _ in range(2)]
            case "reversed":
                bodies.reverse()
            case "usual":
                pass
        return [json.dumps(body).encode() for body in bodies]

    def start(self) -> Self:
        """Begin to answer; `with` does it."""
        for server in self._servers:
            server.start()
        return self

    def stop(self) -> None:
        """Close all connections and leave no thread."""
        for server in self._servers:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
