"""A request's form: counted while it arrives, and judged by its content, never by its names."""

from __future__ import annotations

import io
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import attrs
from anyio import to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from studio.options import Asked, Form, Options
from studio.problems import Problem
from talkgen import Image, Speech

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

    from studio.config import Config
    from talkgen import Settings

__all__ = ["Order", "received"]


@attrs.frozen
class Order:
    """What a request asks for, checked."""

    task_id: str
    asked: Asked
    image: Image
    speech: Speech


class _Part(io.BytesIO):
    """A file of the form, which errors call by its field: what the client calls it is nothing."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__(data)
        self.name = name


async def received(request: Request, config: Config, settings: Settings) -> Order:
    """Read a request to its end. Its temporary files are gone afterwards, whatever happens.

    Raises:
        Problem: It is no form, incomplete, too large or too slow.
        pydantic.ValidationError: A field holds what it must not.
        talkgen.errors.InvalidInput: The photo or the recording cannot be used.
    """
    form = await _arrived(request, config)
    try:
        fields = _fields(form, settings)
        image = await _part(form, "image", settings.max_image_bytes)
        audio = await _part(form, "audio", settings.max_audio_bytes)
    finally:
        await form.close()
    opened = partial(Image.open, image, max_pixels=settings.max_image_pixels)
    heard = partial(Speech.open, audio, max_seconds=settings.max_audio_seconds)
    photo, speech = await to_thread.run_sync(opened), await to_thread.run_sync(heard)
    asked = await to_thread.run_sync(_asked, fields.options, photo, speech)
    return Order(task_id=str(fields.task_id), asked=asked, image=photo, speech=speech)


def _asked(options: Options, image: Image, speech: Speech) -> Asked:
    return Asked(options=options, image=image.digest, audio=speech.digest)


async def _arrived(request: Request, config: Config) -> FormData:
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind.strip().lower() != "multipart/form-data":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the files as multipart/form-data.")
    body = _counted(request, config.max_upload_bytes)
    parser = MultiPartParser(request.headers, body, max_files=2, max_fields=len(Form.model_fields))
    try:
        with anyio.fail_after(config.upload_seconds):
            return await parser.parse()
    except MultiPartException as error:
        raise Problem(HTTPStatus.BAD_REQUEST, error.message) from error
    except ClientDisconnect:  # nobody hears it, and nothing is wrong here
        raise Problem(HTTPStatus.BAD_REQUEST, "The upload broke off.") from None
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"The upload took over {config.upload_seconds:g} seconds."
        ) from None


async def _counted(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body, up to the limit; a length that is told is believed only when it is too large."""
    told = request.headers.get("content-length", "")
    arrived = int(told) if told.isdecimal() and int(told) > limit else 0
    _check_size("The upload", arrived, limit)
    async for chunk in request.stream():
        arrived += len(chunk)
        _check_size("The upload", arrived, limit)
        yield chunk


def _check_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{what} has more than {limit / 2**20:.3g} MB.",
            hint="Send a smaller photo, or a shorter or compressed recording.",
        )


def _fields(form: FormData, settings: Settings) -> Form:
    """The fields that are no files; an empty one, as pages send it, is one that is not there."""
    given = {name: value for name, value in form.items() if isinstance(value, str) and value}
    return Form.model_validate({"conf_threshold": settings.confidence_threshold, **given})


async def _part(form: FormData, name: str, limit: int) -> _Part:
    file = form.get(name)
    if not isinstance(file, UploadFile):
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"The form lacks the file {name!r}.")
    _check_size(name, file.size or 0, limit)
    return _Part(name, await file.read())
