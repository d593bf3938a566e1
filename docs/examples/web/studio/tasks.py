"""Tasks over HTTP: begin one, ask for it, fetch its video."""

import mimetypes
from http import HTTPStatus
from typing import Annotated, Any

from anyio import Path, to_thread
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.requests import HTTPConnection

from studio import wire
from studio.host import Host
from studio.options import Form
from studio.security import refuse_other_sites
from studio.uploads import received
from talkgen import Image, Run, codecs

__all__ = ["TheHost", "router"]

router = APIRouter(prefix=wire.PREFIX)

FILE = {"type": "string", "format": "binary"}
PRIVATE = {"Cache-Control": "private, max-age=3600"}


async def _host(connection: HTTPConnection) -> Host:
    host: Host = connection.app.state.host
    return host


TheHost = Annotated[Host, Depends(_host)]


def _form() -> dict[str, Any]:
    """The form, for the description of the API: the body is read by hand, to count it."""
    schema = Form.model_json_schema()
    schema["properties"] |= {"image": FILE, "audio": FILE}
    schema["required"] = ["image", "audio"]
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/generate", openapi_extra=_form())
async def generate(
    request: Request, host: TheHost, prefer: Annotated[str, Header()] = ""
) -> JSONResponse:
    """Make a video. Answers with the result, or at once where `Prefer: respond-async` asks it."""
    refuse_other_sites(request.headers)
    with host.admitted():
        order = await received(request, request.app.state.config, request.app.state.settings)
        run = await host.start(order)
    if "respond-async" in prefer.lower() and not await _ended_early(run):
        return _later(wire.accepted(run.task_id), {"Preference-Applied": "respond-async"})
    result = await run
    return JSONResponse(wire.answer(result)) if result.success else _later(wire.answer(result))


async def _ended_early(run: Run) -> bool:
    """Wait until the inputs are kept; from then on not even a kill loses the task."""
    async for event in run:
        if event.stage == "upload_complete":
            return False
    return True


def _later(told: dict[str, Any], headers: dict[str, str] | None = None) -> JSONResponse:
    location = {"Location": told["links"]["status"]}
    return JSONResponse(told, HTTPStatus.ACCEPTED, {**location, **(headers or {})})


@router.get("/status/{task_id}")
async def status(task_id: str, host: TheHost) -> JSONResponse:
    """The last event of a task."""
    return JSONResponse(wire.flat(await host.last(task_id)))


@router.get("/video/{task_id}")  # describes it; an operation's id allows of one method
@router.api_route("/video/{task_id}", methods=["GET", "HEAD"], include_in_schema=False)
async def video(task_id: str, host: TheHost) -> FileResponse:
    """The finished video, or the part of it that a `Range` asks for."""
    path = await host.video(task_id)
    kind, _ = mimetypes.guess_type(path.name)
    return FileResponse(path, media_type=kind, headers=PRIVATE)


@router.get("/video/{task_id}/poster")
async def poster(task_id: str, host: TheHost) -> Response:
    """The picture that the video begins with."""
    data = await Path(await host.video(task_id)).read_bytes()
    return Response(await to_thread.run_sync(_first_frame, data), 200, PRIVATE, "image/jpeg")


def _first_frame(video: bytes) -> bytes:
    return Image(codecs.first_frame(video)).encode("jpeg")


@router.get("/storage/stats")
async def storage_stats(host: TheHost) -> JSONResponse:
    """How much is kept, and how much room is left; for whoever runs the server."""
    return JSONResponse((await host.storage.stats()).to_dict())
