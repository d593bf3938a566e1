"""The service's answers: `api.d-id.com`, as far as it is documented and observed."""

from __future__ import annotations

import base64
import binascii
import json
import re
from email import message_from_bytes
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import attrs

from talkgen.testing.fake_did._faults import Answer
from talkgen.testing.fake_did._media import picture_size, sound_seconds
from talkgen.testing.fake_did._state import OWNER, Exchange, Upload, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from talkgen._types import JSON
    from talkgen.testing.fake_did._results import Results
    from talkgen.testing.fake_did._state import State, Talk

__all__ = ["Api", "Request"]

MAX_IMAGE_BYTES = 10_000_000
MAX_AUDIO_BYTES = 6_000_000
MIN_SIDE = 160
MAX_SECONDS = 600.0
CHARACTERS_PER_SECOND = 14  # of a voice that reads

FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,50}")
SOURCE_URL = re.compile(r"(?:https|s3):.*\.(?:jpe?g|png|JPE?G|PNG)")
AUDIO_URL = re.compile(
    r"(?:https|s3)://\S+\.(?:m4a|flac|mp[34]|wav|M4A|FLAC|MP[34]|WAV)(?:[?#][\w./=&#%-]+)?"
)
FIELDS = {"source_url", "script", "config", "user_data", "name", "webhook", "result_url"}
CONFIG_FIELDS = {
    "logo", "stitch", "result_format", "fluent", "pad_audio", "driver_expressions",
}  # fmt: skip
SCRIPT_FIELDS = {
    "audio": {"type", "subtitles", "audio_url"},
    "text": {"type", "input", "ssml", "subtitles", "provider"},
}
SUPPORTED = {"images": ["image/jpeg", "image/png"], "audios": ["audio/*", "video/*"]}


@attrs.frozen
class Request:
    """An HTTP request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The first value of each parameter."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def name(self) -> str:
        """What faults and the ledger call it: `GET /talks/{id}`."""
        parts = self.path.strip("/").split("/")
        known = {"face-detection", "voices"}
        path = [part if not at or part in known else "{id}" for at, part in enumerate(parts)]
        return f"{self.method} /{'/'.join(path)}"

    def json(self) -> JSON:
        """The body, if the header says that it is JSON."""
        kind = self.headers.get("Content-Type", "").partition(";")[0]
        if kind != "application/json":
            return {}
        return json.loads(self.body)

    def form(self) -> dict[str, Part]:
        """The fields of a multipart form."""
        head = f"Content-Type: {self.headers.get('Content-Type', '')}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + self.body).get_payload()
        if isinstance(parts, str):
            return {}
        return {
            part.get_param("name", header="content-disposition"): Part(
                part.get_payload(decode=True), part.get_content_type(), part.get_filename()
            )
            for part in parts
        }


@attrs.frozen
class Part:
    """A field of a form."""

    data: bytes
    type: str
    file_name: str | None


class Refused(Exception):
    """Ends a request with an answer."""

    def __init__(self, status: int, kind: str, description: str, details: JSON = None) -> None:
        super().__init__(description)
        self.answer = Answer.error(status, kind, description, details)


class Api:
    """Answers requests; knows nothing of sockets."""

    def __init__(self, state: State, results: Results, api_key: str) -> None:
        """Answer for one account."""
        self._state, self._results, self._key = state, results, api_key

    ROUTES: ClassVar[dict[str, Callable[[Api, Request], Answer]]] = {}

    def answer(self, request: Request) -> Answer:
        """Carry a request out."""
        if (refusal := self._check_key(request.headers.get("Authorization", ""))) is not None:
            return refusal
        handler = self.ROUTES.get(request.name)
        if handler is None:
            return Answer.error(405, "MethodNotAllowedError", "see https://docs.d-id.com/reference")
        with self._state.lock:
            try:
                answer = handler(self, request)
            except Refused as refusal_raised:
                answer = refusal_raised.answer
            self._note(request, answer)
        return answer

    def _note(self, request: Request, answer: Answer) -> None:
        sent = request.json() if request.method == "POST" else None
        answered = json.loads(answer.body) if answer.body else None
        exchange = Exchange(request.name, sent, answer.status, answered)
        self._state.exchanges.append(exchange)

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

    # --- uploads -------------------------------------------------------------------------------

    def add_image(self, request: Request) -> Answer:
        """`POST /images`: checked for its size, not for a face."""
        state, form = self._state, request.form()
        part, name = _file(form, "image", SUPPORTED["images"])
        size = picture_size(part.data)
        if size is None:
            raise Refused(400, "BadRequestError", "the image cannot be read")
        if min(size) < MIN_SIDE:
            raise Refused(
                400, "InvalidImageResolutionError", "image should be at least 160x160 pixels"
            )
        if len(part.data) > MAX_IMAGE_BYTES:
            raise Refused(400, "InvalidFileSizeError", "file size exceeded 10 MB")
        self._moderate("ImageModerationError", "CelebrityRecognizedError")
        number = f"img_{state.number('image'):021d}"
        url = f"s3://d-id-images-prod/{OWNER}/{number}/{name}"
        pixels = size[0] * size[1]
        now = state.clock.now()
        state.images[number] = Upload(number, url, part.data, now, pixels=pixels)
        state.uploads += 1
        answer: dict[str, JSON] = {"url": url, "id": number}
        if "detect_faces" in form:
            answer["faces"] = [_face(size)] * state.behaviour.faces
        return Answer.of_json(201, answer)

    def add_audio(self, request: Request) -> Answer:
        """`POST /audios`."""
        state = self._state
        part, name = _file(request.form(), "audio", SUPPORTED["audios"])
        if len(part.data) > MAX_AUDIO_BYTES:
            raise Refused(400, "InvalidFileSizeError", "file size exceeded 6 MB")
        seconds = sound_seconds(part.data)
        if not seconds:
            raise Refused(400, "InvalidAudioDurationError", "the audio has no duration")
        self._moderate("AudioModerationError")
        number = f"{state.number('audio'):021d}"
        url = f"s3://d-id-audios-prod/{OWNER}/{number}/{name.rpartition('.')[0]}.wav"
        now = state.clock.now()
        state.audios[number] = Upload(number, url, part.data, now, seconds=seconds)
        state.uploads += 1
        answer = {"url": url, "id": number, "duration": seconds, "moderation_metadata": {}}
        return Answer.of_json(201, answer)

    def delete_image(self, request: Request) -> Answer:
        """`DELETE /images/{id}`."""
        return self._delete(self._state.images, request, "image")

    def delete_audio(self, request: Request) -> Answer:
        """`DELETE /audios/{id}`."""
        return self._delete(self._state.audios, request, "audio")

    def _delete(self, uploads: dict[str, Upload], request: Request, kind: str) -> Answer:
        if uploads.pop(_last(request), None) is None:
            raise Refused(404, "NotFoundError", f"{kind} not found")
        return Answer(204)

    def find_faces(self, request: Request) -> Answer:
        """`POST /images/face-detection`."""
        source = request.json().get("source_url")
        upload = _by_url(self._state.images, source)
        size = picture_size(upload.data) if upload else None
        if size is None:
            raise Refused(400, "BadRequestError", f"cannot validate {source}")
        crop = {"top": 0.2, "left": 0.25, "bottom": 0.7, "right": 0.75}
        metadata = {"length": len(upload.data) if upload else 0, "height": size[1]}
        return Answer.of_json(
            200,
            {
                "faceCrops": [crop] * self._state.behaviour.faces,
                "metadata": {**metadata, "width": size[0]},
            },
        )

    def _moderate(self, *kinds: str) -> None:
        moderation = self._state.behaviour.moderation
        if moderation in kinds:
            raise Refused(451, moderation or "", "the content was moderated")

    # --- talks ---------------------------------------------------------------------------------

    def add_talk(self, request: Request) -> Answer:
        """`POST /talks`: inputs are checked, and credits taken, before it answers."""
        state, body = self._state, request.json()
        self._check_fields(body)
        self._check_plan(body)
        self._check_picture(body["source_url"])
        seconds = self._seconds(body["script"]) + body.get("config", {}).get("pad_audio", 0)
        self._moderate(
            "ImageModerationError",
            "CelebrityRecognizedError",
            "AudioModerationError",
            "TextModerationError",
        )
        if state.remaining < max(1, -(-seconds // 15)):
            raise Refused(402, "InsufficientCreditsError", "not enough credits")
        talk = state.add_talk(body, seconds)
        answer = {
            "id": talk.id,
            "object": "talk",
            "created_by": OWNER,
            "created_at": stamp(talk.created),
            "status": "created",
        }
        return Answer.of_json(201, answer)

    def _check_fields(self, body: JSON) -> None:
        if "script" not in body:
            raise _invalid("body.script", "'script' is required")
        script = body["script"]
        allowed = SCRIPT_FIELDS.get(script.get("type"))
        if allowed is None:
            raise Refused(400, "BadRequestError", "Failed to validate script")
        strict = self._state.behaviour.strict
        for where, fields, known in (
            ("body", body, FIELDS),
            ("body.config", body.get("config", {}), CONFIG_FIELDS),
            ("body.script", script, allowed),
        ):
            if strict and (unknown := set(fields) - known):
                name = min(unknown)
                raise _invalid(f"{where}.{name}", f"'{name}' is not allowed")
        user_data = body.get("user_data")
        if user_data is not None and not re.fullmatch(r"(?!\s*$).{1,1000}", user_data):
            raise _invalid("body.user_data", "'user_data' must be one line of 1 to 1000 characters")
        if not SOURCE_URL.search(body.get("source_url", "https://d-id.example/alice.jpg")):
            raise _invalid(
                "body.source_url", "must be a valid image URL (ending with jpg|jpeg|png)"
            )
        body.setdefault("source_url", "https://d-id.example/alice.jpg")

    def _check_plan(self, body: JSON) -> None:
        wanted = {name for name, value in body.get("config", {}).items() if value}
        wanted |= {"subtitles"} & {name for name, value in body["script"].items() if value}
        if denied := wanted & self._state.behaviour.denied:
            raise Refused(403, "PermissionError", f"user has no permission for {min(denied)}")

    def _check_picture(self, url: str) -> None:
        upload = _by_url(self._state.images, url)
        if url.startswith("s3:") and (upload is None or upload.expired(self._state.clock.now())):
            raise _not_valid(url)
        if upload is not None and upload.pixels > self._state.behaviour.max_pixels:
            raise Refused(400, "InvalidFileSizeError", "file size exceeded 10 MB limit")

    def _seconds(self, script: JSON) -> float:
        if script["type"] == "text":
            return len(script.get("input", "")) / CHARACTERS_PER_SECOND
        url = script.get("audio_url", "")
        if not AUDIO_URL.fullmatch(url):
            raise Refused(400, "BadRequestError", "Failed to validate script")
        upload = _by_url(self._state.audios, url)
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
        size = min(int(query.get("limit", 100)), state.behaviour.page_size)
        start = int(query.get("token", "0"))
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
        talk = self._state.talks.get(_last(request))
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

    # --- the account ---------------------------------------------------------------------------

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


Api.ROUTES = {
    "POST /images": Api.add_image,
    "DELETE /images/{id}": Api.delete_image,
    "POST /images/face-detection": Api.find_faces,
    "POST /audios": Api.add_audio,
    "DELETE /audios/{id}": Api.delete_audio,
    "POST /talks": Api.add_talk,
    "GET /talks": Api.list_talks,
    "GET /talks/{id}": Api.get_talk,
    "DELETE /talks/{id}": Api.delete_talk,
    "GET /credits": Api.credits,
    "GET /tts/voices": Api.voices,
}


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _file(form: dict[str, Part], field: str, supported: list[str]) -> tuple[Part, str]:
    part = form.get(field)
    if part is None:
        raise Refused(400, "BadRequestError", f"'{field}' is required; nothing is fetched here")
    if not any(re.fullmatch(kind.replace("*", ".+"), part.type) for kind in supported):
        details = {"received": part.type, "supported": supported}
        raise Refused(415, "UnsupportedMimeTypeError", "unsupported mime type", details)
    name = part.file_name or "file"
    if not FILE_NAME.fullmatch(name):
        raise Refused(400, "BadRequestError", "invalid file name")
    return part, name


def _face(size: tuple[int, int]) -> JSON:
    return {
        "size": min(size) // 2,
        "top_left": [size[0] // 4, size[1] // 4],
        "overlap": "NO",
        "detect_confidence": 100,
        "sharpness": 100,
        "face_occluded": False,
    }


def _last(request: Request) -> str:
    return request.path.rpartition("/")[2]


def _by_url(uploads: dict[str, Upload], url: str) -> Upload | None:
    return next((upload for upload in uploads.values() if upload.url == url), None)


def _invalid(field: str, message: str) -> Refused:
    return Refused(400, "ValidationError", "validation failed", {field: {"message": message}})


def _not_valid(url: str) -> Refused:
    description = f"cannot validate {url} - may be corrupted or does not exist"
    return Refused(400, "BadRequestError", description)
