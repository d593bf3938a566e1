"""The service's answers: `api.d-id.com`, as far as it is documented and observed."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from talkgen.testing.fake_did._faults import Answer
from talkgen.testing.fake_did._request import Refused
from talkgen.testing.fake_did._state import OWNER, Exchange, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from talkgen.testing.fake_did._request import Request
    from talkgen.testing.fake_did._state import State
    from talkgen.testing.fake_did._talks import Talks
    from talkgen.testing.fake_did._uploads import Uploads

__all__ = ["Api"]


class Api:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, state: State, uploads: Uploads, talks: Talks, api_key: str) -> None:
        """Answer for one account."""
        self._state, self._key = state, api_key
        self._routes: dict[str, Callable[[Request], Answer]] = {
            "POST /images": uploads.add_image,
            "DELETE /images/{id}": uploads.delete_image,
            "POST /images/face-detection": uploads.find_faces,
            "POST /audios": uploads.add_audio,
            "DELETE /audios/{id}": uploads.delete_audio,
            "POST /talks": talks.add_talk,
            "GET /talks": talks.list_talks,
            "GET /talks/{id}": talks.get_talk,
            "DELETE /talks/{id}": talks.delete_talk,
            "GET /credits": self.credits,
            "GET /tts/voices": self.voices,
        }

    def answer(self, request: Request) -> Answer:
        """Carry a request out."""
        if (refusal := self._check_key(request.headers.get("Authorization", ""))) is not None:
            return refusal
        handler = self._routes.get(request.name)
        if handler is None:
            return Answer.error(405, "MethodNotAllowedError", "see https://docs.d-id.com/reference")
        with self._state.lock:
            try:
                answer = handler(request)
            except Refused as refused:
                answer = refused.answer
            self._note(request, answer)
        return answer

    def _note(self, request: Request, answer: Answer) -> None:
        sent = None
        if request.method == "POST":
            try:
                sent = request.json()
            except Refused:
                sent = request.body.decode("utf-8", errors="replace")
        answered = json.loads(answer.body) if answer.body else None
        self._state.exchanges.append(Exchange(request.name, sent, answer.status, answered))

    def _check_key(self, header: str) -> Answer | None:
        """Both forms of Basic, and Bearer; the gateway itself answers what is none of them."""
        scheme, _, value = header.partition(" ")
        if scheme not in {"Basic", "Bearer"} or not value:
            message = (
                "Invalid key=value pair (missing equal-sign) in Authorization header "
                f"(hashed with SHA-256 and encoded with Base64): '{header}'."
            )
            return Answer.of_json(403, {"message": message})
        if value == self._key or (scheme == "Basic" and _decoded(value) == self._key):
            return None
        return Answer.error(401, "AuthorizationError", "user unauthenticated")

    def credits(self, _request: Request) -> Answer:
        """`GET /credits`."""
        state = self._state
        facts = {"remaining": state.remaining, "total": float(state.total)}
        expires = stamp(state.clock.now() + 30 * 24 * 3600)
        return Answer.of_json(
            200, {"credits": [{"owner_id": OWNER, "expire_at": expires, **facts}], **facts}
        )

    def voices(self, request: Request) -> Answer:
        """`GET /tts/voices`."""
        provider = request.query.get("provider", "microsoft")
        voice = {
            "id": "en-US-JennyNeural",
            "name": "Jenny",
            "gender": "Female",
            "access": "public",
            "provider": provider,
            "languages": [{"language": "English", "locale": "en-US"}],
            "styles": ["cheerful"],
        }
        return Answer.of_json(200, [voice])


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
