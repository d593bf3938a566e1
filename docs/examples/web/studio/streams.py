"""A task's events as they happen: server-sent events and WebSocket."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, WebSocket, WebSocketDisconnect
from fastapi.sse import EventSourceResponse, ServerSentEvent

from studio import wire
from studio.problems import Problem, response_to
from studio.tasks import TheHost
from talkgen.errors import TaskNotFound
from talkgen.events import Event, Heartbeat, Preview

__all__ = ["router"]

router = APIRouter(prefix=f"{wire.PREFIX}/progress")


async def _events(
    task_id: str, host: TheHost, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncIterator[Event]:
    return await host.events(task_id, last_event_id)


@router.get("/{task_id}/sse", response_class=EventSourceResponse)
async def server_sent_events(
    events: Annotated[AsyncIterator[Event], Depends(_events)],
) -> AsyncIterator[ServerSentEvent]:
    """The events as `EventSource` reads them: progress as messages, endings by their names.

    A browser that lost the connection goes on after the last id that it has seen.
    """
    async for event in events:
        yield _sent(event)


def _sent(event: Event) -> ServerSentEvent:
    if isinstance(event, Heartbeat):
        return ServerSentEvent(comment=event.message)
    if isinstance(event, Preview):  # not kept, and therefore nowhere to go on from
        return ServerSentEvent(data=wire.flat(event), event=event.event_type)
    name = event.event_type if event.terminal else None
    return ServerSentEvent(data=wire.flat(event), event=name, id=event.cursor)


@router.websocket("/{task_id}")
async def websocket(
    socket: WebSocket, task_id: str, host: TheHost, after: str | None = None
) -> None:
    """The events in their wire form; `?after=1-17` goes on after the one with this cursor."""
    try:
        events = await host.events(task_id, after)
    except (TaskNotFound, Problem) as error:
        await socket.send_denial_response(response_to(error))
        return
    await socket.accept()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_left, socket, tasks.cancel_scope)
        with suppress(WebSocketDisconnect):
            async for event in events:
                await socket.send_json(wire.wire(event))
            await socket.close()
        tasks.cancel_scope.cancel()


async def _until_left(socket: WebSocket, scope: anyio.CancelScope) -> None:
    """End it with the connection; what a client says is of no interest."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
    scope.cancel()
