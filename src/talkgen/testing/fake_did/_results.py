"""The host of the results: presigned links to an object store."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

from talkgen.testing.fake_did._faults import Answer
from talkgen.testing.fake_did._media import video
from talkgen.testing.fake_did._state import DAY, OWNER

if TYPE_CHECKING:
    from talkgen.testing.fake_did._request import Request
    from talkgen.testing.fake_did._state import State, Talk

__all__ = ["Results"]


class Results:
    """Signs links, and sends what is behind them."""

    def __init__(self, state: State) -> None:
        """Nothing is signed yet."""
        self._state = state
        self._signed: dict[str, Talk] = {}
        self.base_url = ""

    def link(self, talk: Talk) -> str:
        """Where the video is, for a day."""
        if talk.link is None or self._state.behaviour.renews_links:
            talk.link = self._sign(talk)
        return self.base_url + talk.link

    def _sign(self, talk: Talk) -> str:
        now = self._state.clock.now()
        form = talk.request.get("config", {}).get("result_format", "mp4")
        path = f"/{quote(OWNER)}/{talk.id}/{int(now * 1e3)}.{form}"
        digest = hashlib.sha1(f"{path} {now}".encode()).digest()  # noqa: S324 - as the store does
        # Never without the characters that must come back as they were sent.
        signature = quote(base64.b64encode(b"\xfb\xff" + digest).decode(), safe="")
        expires = int(now + DAY)
        target = f"{path}?AWSAccessKeyId=AKIAFAKE&Expires={expires}&Signature={signature}"
        self._signed[target] = talk
        return target

    def answer(self, request: Request) -> Answer:
        """Send a video to whoever has its link, and nothing but its link."""
        if "Authorization" in request.headers:
            return _refused(400, "InvalidArgument", "Only one auth mechanism allowed")
        with self._state.lock:
            talk = self._signed.get(request.target)
            if talk is None:
                return _refused(403, "SignatureDoesNotMatch", "The signature does not match")
            expires = int(parse_qs(urlsplit(request.target).query)["Expires"][0])
            if self._state.clock.now() > expires or talk.deleted:
                return _refused(403, "AccessDenied", "Request has expired")
            self._state.downloads += 1
        return Answer(200, video(talk.seconds), {"Content-Type": "video/mp4"})


def _refused(status: int, code: str, message: str) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})
