"""Pictures and recordings: checked, kept for a day, deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from talkgen.testing.fake_did._faults import Answer
from talkgen.testing.fake_did._media import picture_size, sound_seconds
from talkgen.testing.fake_did._request import Refused
from talkgen.testing.fake_did._state import OWNER, Upload

if TYPE_CHECKING:
    from talkgen._types import JSON
    from talkgen.testing.fake_did._request import Part, Request
    from talkgen.testing.fake_did._state import State

__all__ = ["Uploads", "by_url", "moderate"]

MAX_IMAGE_BYTES = 10_000_000
MAX_AUDIO_BYTES = 6_000_000
MIN_SIDE = 160

FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,50}")
SUPPORTED = {"images": ["image/jpeg", "image/png"], "audios": ["audio/*", "video/*"]}


class Uploads:
    """Answers what is asked of `/images` and `/audios`."""

    def __init__(self, state: State) -> None:
        self._state = state

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
        moderate(state, "ImageModerationError", "CelebrityRecognizedError")
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
        moderate(state, "AudioModerationError")
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
        upload = uploads.pop(request.last, None)
        if upload is None or upload.expired(self._state.clock.now()):
            raise Refused(404, "NotFoundError", f"{kind} not found")
        return Answer(204)

    def find_faces(self, request: Request) -> Answer:
        """`POST /images/face-detection`."""
        source = request.json().get("source_url")
        upload = by_url(self._state.images, source)
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


def moderate(state: State, *kinds: str) -> None:
    """Refuse if the service objects to this kind of content."""
    moderation = state.behaviour.moderation
    if moderation in kinds:
        raise Refused(451, moderation or "", "the content was moderated")


def by_url(uploads: dict[str, Upload], url: str) -> Upload | None:
    """The upload that this is the address of."""
    return next((upload for upload in uploads.values() if upload.url == url), None)


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
