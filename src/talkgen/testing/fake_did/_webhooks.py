"""Webhooks: what the service tells of a talk, posted to the host that waits for it."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import attrs

from talkgen.testing.fake_did._state import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen._types import JSON
    from talkgen.testing.fake_did._faults import FaultScript
    from talkgen.testing.fake_did._state import State, Talk

    Shown: TypeAlias = Callable[[Talk, float], JSON]

__all__ = ["Postman", "bodies"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PATIENCE = 5.0  # real seconds that a host has to answer


@attrs.define(order=True)
class Letter:
    """A body on its way: `shown` is the moment that it tells of, `due` when it is sent."""

    due: float
    talk: Talk = attrs.field(order=False)
    shown: float = attrs.field(order=False)
    delayed: bool = attrs.field(default=False, order=False)


def letters(talk: Talk, order: str) -> list[Letter]:
    """What is sent of a talk, one for each change of its status."""
    moments = [talk.created, talk.started, talk.ends]
    match order:
        case "none":
            return []
        case "twice":
            return [Letter(at, talk, at) for at in moments for _ in range(2)]
        case "reversed":
            return [Letter(talk.ends, talk, at) for at in reversed(moments)]
    return [Letter(at, talk, at) for at in moments]


def bodies(talk: Talk, order: str, shown: Shown) -> list[bytes]:
    """The same as bodies, in their order."""
    return [json.dumps(shown(talk, letter.shown)).encode() for letter in letters(talk, order)]


class Postman:
    """Posts what is due, in a thread of its own; to loopback alone, as a test reaches no network.

    Nothing is signed, and nothing is posted again: no document says that the service does.
    """

    def __init__(self, state: State, faults: FaultScript) -> None:
        """Not started yet."""
        self._state, self._faults = state, faults
        self._due: list[Letter] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="fake D-ID's webhooks", daemon=True)
        self.shown: Shown = lambda _talk, _at: {}

    def start(self) -> None:
        """Begin to post."""
        self._thread.start()

    def stop(self) -> None:
        """Leave what is not posted yet."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def expect(self, talk: Talk) -> None:
        """Post what will be said of a talk, if it has an address on loopback."""
        if _on_loopback(talk):
            with self._changed:
                self._due += letters(talk, self._state.behaviour.webhooks)
                self._changed.notify()

    def time_has_changed(self) -> None:
        """Look again at what is due."""
        with self._changed:
            self._changed.notify()

    def post(self, talk: Talk, body: bytes) -> int | None:
        """Post at once; the host's answer, None where it gave none."""
        status = _posted(talk.request.get("webhook", ""), body) if _on_loopback(talk) else None
        with self._state.lock:
            self._state.deliveries.append(Delivery(talk.id, body, status))
        return status

    def _work(self) -> None:
        while (letter := self._next()) is not None:
            self._handle(letter)

    def _next(self) -> Letter | None:
        """The letter that is due; None at the end."""
        clock = self._state.clock
        with self._changed:
            while not self._stopped:
                first = min(self._due, default=None)
                rest = None if first is None else (first.due - clock.now()) / clock.speed
                if first is not None and rest is not None and rest <= 0:
                    self._due.remove(first)
                    return first
                self._changed.wait(rest)
        return None

    def _handle(self, letter: Letter) -> None:
        fault = None if letter.delayed else self._faults.take("webhook")
        if fault is None:
            self.post(letter.talk, self._body(letter))
        elif fault.delay:
            with self._changed:
                self._due.append(attrs.evolve(letter, due=letter.due + fault.delay, delayed=True))
        elif not fault.drop:
            self.post(letter.talk, (fault.body or self._body(letter))[: fault.truncate])

    def _body(self, letter: Letter) -> bytes:
        with self._state.lock:
            return json.dumps(self.shown(letter.talk, letter.shown)).encode()


def _on_loopback(talk: Talk) -> bool:
    address = urlsplit(talk.request.get("webhook", ""))
    return address.scheme == "http" and address.hostname in LOOPBACK


def _posted(url: str, body: bytes) -> int | None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=PATIENCE)
    target = f"{address.path or '/'}{address.query and f'?{address.query}'}"
    try:
        connection.request("POST", target, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
