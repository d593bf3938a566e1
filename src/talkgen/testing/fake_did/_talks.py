"""Talks: asked for, paid for, shown, listed and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from talkgen.testing.fake_did._checks import check
from talkgen.testing.fake_did._faults import Answer
from talkgen.testing.fake_did._request import Refused, invalid
from talkgen.testing.fake_did._state import OWNER, stamp
from talkgen.testing.fake_did._uploads import by_url, moderate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from talkgen._types import JSON
    from talkgen.testing.fake_did._request import Request
    from talkgen.testing.fake_did._results import Results
    from talkgen.testing.fake_did._state import State, Talk

__all__ = ["Talks"]

MAX_SECONDS = 600.0
CHARACTERS_PER_SECOND = 14  # of a voice that reads
DEMO = "https://d-id.example/alice.jpg"


class Talks:
    """Answers what is asked of `/talks`."""

    def __init__(
        self, state: State, results: Results, on_created: Callable[[Talk], object]
    ) -> None:
        """Answer for one account.

        Args:
            state: What is known.
            results: Signs links to videos.
            on_created: Told of each new talk.
        """
        self._state, self._results, self._on_created = state, results, on_created

    def add_talk(self, request: Request) -> Answer:
        """`POST /talks`: inputs are checked, and credits taken, before it answers."""
        state, body = self._state, request.json()
        check(body, strict=state.behaviour.strict)
        body.setdefault("source_url", DEMO)
        self._check_plan(body)
        self._check_picture(body["source_url"])
        seconds = self._seconds(body["script"]) + body.get("config", {}).get("pad_audio", 0)
        moderate(
            state,
            "ImageModerationError",
            "CelebrityRecognizedError",
            "AudioModerationError",
            "TextModerationError",
        )
        if state.remaining < max(1, -(-seconds // 15)):
            raise Refused(402, "InsufficientCreditsError", "not enough credits")
        talk = state.add_talk(body, seconds)
        self._on_created(talk)
        answer = {
            "id": talk.id,
            "object": "talk",
            "created_by": OWNER,
            "created_at": stamp(talk.created),
            "status": "created",
        }
        return Answer.of_json(201, answer)

    def _check_plan(self, body: JSON) -> None:
        wanted = {name for name, value in body.get("config", {}).items() if value}
        wanted |= {"subtitles"} & {name for name, value in body["script"].items() if value}
        if denied := wanted & self._state.behaviour.denied:
            raise Refused(403, "PermissionError", f"user has no permission for {min(denied)}")

    def _check_picture(self, url: str) -> None:
        upload = by_url(self._state.images, url)
        if url.startswith("s3:") and (upload is None or upload.expired(self._state.clock.now())):
            raise _not_valid(url)
        if upload is not None and upload.pixels > self._state.behaviour.max_pixels:
            raise Refused(400, "InvalidFileSizeError", "file size exceeded 10 MB limit")

    def _seconds(self, script: JSON) -> float:
        if script["type"] == "text":
            return len(script["input"]) / CHARACTERS_PER_SECOND
        url = script["audio_url"]
        upload = by_url(self._state.audios, url)
        if upload is None or upload.expired(self._state.clock.now()):
            raise _not_valid(url)
        if upload.seconds > MAX_SECONDS:
            raise Refused(400, "InvalidAudioDurationError", "audio is longer than 10 minutes")
        return upload.seconds

    def get_talk(self, request: Request) -> Answer:
        """`GET /talks/{id}`."""
        return Answer.of_json(200, self.shown(self._talk(request)))

    def list_talks(self, request: Request) -> Answer:
        """`GET /talks`: pages by a token."""
        state, query = self._state, request.query
        size = min(_number(query, "limit", 100), state.behaviour.page_size)
        start = _number(query, "token", 0)
        talks = state.listed()
        answer: dict[str, JSON] = {"talks": [self._item(t) for t in talks[start : start + size]]}
        if start + size < len(talks):
            answer["token"] = str(start + size)
        return Answer.of_json(200, answer)

    def delete_talk(self, request: Request) -> Answer:
        """`DELETE /talks/{id}`."""
        talk = self._talk(request)
        if self._state.clock.now() < talk.ends:
            raise Refused(409, "NotReadyError", "talk is in process, try again later")
        talk.deleted = True
        return Answer.of_json(200, self.shown(talk))

    def _talk(self, request: Request) -> Talk:
        talk = self._state.talks.get(request.last)
        if talk is None or talk.deleted:
            raise Refused(404, "NotFoundError", "talk not found")
        return talk

    def _item(self, talk: Talk) -> dict[str, JSON]:
        shown, behaviour = self.shown(talk), self._state.behaviour
        if not behaviour.list_user_data:
            shown.pop("user_data", None)
            shown.pop("name", None)
        if not behaviour.list_source_url:
            shown["source_url"] = "https://d-id.example/hidden.jpg"
        return shown

    def shown(self, talk: Talk, at: float | None = None) -> dict[str, JSON]:
        """A talk as the service tells it, with the fields that no document has, too."""
        now = self._state.clock.now() if at is None else at
        status = talk.status(now, self._state.behaviour.odd_status)
        config = talk.request.get("config", {})
        form = config.get("result_format", "mp4")
        shown: dict[str, JSON] = {
            "id": talk.id,
            "object": "talk",
            "user_id": OWNER,
            "user": {"email": "somebody@example.com"},
            "created_by": OWNER,
            "created_at": stamp(talk.created),
            "modified_at": stamp(min(now, talk.ends)),
            "status": status,
            "duration": talk.seconds,
            "source_url": talk.request["source_url"],
            "script": talk.request["script"],
            "config": {**config, "result_format": f".{form}"},
            "pending_url": f"s3://d-id-talks-prod/{OWNER}/{talk.id}/{int(talk.created)}000.{form}",
        }
        shown |= {n: talk.request[n] for n in ("user_data", "name", "webhook") if n in talk.request}
        if now >= talk.started:
            shown["started_at"] = stamp(talk.started, zone=False)
        if status == "done":
            del shown["pending_url"]
            shown["result_url"] = self._results.link(talk)
        elif status == "error":
            shown["error"] = {"kind": talk.error_kind, "description": "it could not be made"}
        return shown


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal():
        raise invalid(f"query.{name}", f"'{name}' is no number")
    return int(text)


def _not_valid(url: str) -> Refused:
    description = f"cannot validate {url} - may be corrupted or does not exist"
    return Refused(400, "BadRequestError", description)
