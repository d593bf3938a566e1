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
from talkgen.testing.fake_did._state import (
    Behaviour,
    Clock,
    Delivery,
    Exchange,
    Ledger,
    State,
)
from talkgen.testing.fake_did._talks import Talks
from talkgen.testing.fake_did._uploads import Uploads
from talkgen.testing.fake_did._webhooks import Postman, bodies

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from talkgen._types import JSON

__all__ = ["Behaviour", "Delivery", "Exchange", "FakeDId", "Fault", "Ledger"]


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
        tls: ssl.SSLContext | None = None,
        **behaviour: Any,
    ) -> None:
        """Make a stand-in that does not run yet.

        Args:
            speed: Its seconds in one real second: 100 makes a talk of 12 s in 0.12 s.
            credits: What the account has; one pays for 15 s that have begun.
            api_key: The account's key.
            tls: Answer by https, with the certificate of this context for 127.0.0.1.
            **behaviour: Fields of `Behaviour`.
        """
        self.api_key = api_key
        self.behaviour = Behaviour(**behaviour)
        self._clock = Clock(speed)
        self._faults = FaultScript()
        self._state = State(self.behaviour, self._clock, credits)
        self._results = Results(self._state)
        self._postman = Postman(self._state, self._faults)
        self._talks = Talks(self._state, self._results, self._postman.expect)
        self._postman.shown = self._talks.shown
        api = Api(self._state, Uploads(self._state), self._talks, api_key)
        shared: dict[str, Any] = {"state": self._state, "faults": self._faults, "tls": tls}
        self._servers = (
            Server(api.answer, name=lambda request: request.name, **shared),
            Server(self._results.answer, name=lambda _request: "GET result", **shared),
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
                `DELETE /audios/{id}`, `GET /credits`, `GET /tts/voices`, `GET result`, or
                `webhook` for what the service itself posts.
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
        self._postman.time_has_changed()

    def ended(self, talk_id: str) -> float:
        """When a talk ended, or will, by `time.monotonic()`."""
        with self._state.lock:
            return self._clock.monotonic(self._state.talks[talk_id].ends)

    def webhook_bodies(self, talk_id: str) -> list[bytes]:
        """What the talk's webhook is sent, in the order of `behaviour.webhooks`.

        They are posted by themselves, each when it is due, to a talk whose `webhook` is an address
        on loopback, like `http://127.0.0.1:8000/hooks/...`; those of any other are only told here.
        """
        with self._state.lock:
            talk = self._state.talks[talk_id]
            return bodies(talk, self.behaviour.webhooks, self._talks.shown)

    def forge_webhook(self, talk_id: str, **facts: JSON) -> int | None:
        """Post to a talk's webhook what the service never said, as whoever knows its address could.

        Args:
            talk_id: Whose.
            **facts: Of the body, beside the id.

        Returns:
            The host's answer; None where it gave none.
        """
        with self._state.lock:
            talk = self._state.talks[talk_id]
        return self._postman.post(talk, json.dumps({"id": talk_id, **facts}).encode())

    def start(self) -> Self:
        """Begin to answer; `with` does it."""
        for server in self._servers:
            server.start()
        self._postman.start()
        return self

    def stop(self) -> None:
        """Close all connections and leave no thread."""
        self._postman.stop()
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
