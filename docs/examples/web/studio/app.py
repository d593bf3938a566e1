"""The application, assembled."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from studio import metrics, problems, streams, tasks
from studio.host import open_host
from studio.ranges import Ranges
from studio.security import SecurityHeaders
from talkgen.choice import choose_backends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp

    from studio.config import Config
    from talkgen import Settings
    from talkgen.protocols import VideoGenerator

__all__ = ["create_app"]

PAGE = Path(__file__).parent / "static"


def create_app(
    settings: Settings, config: Config, *, generator: VideoGenerator | None = None
) -> ASGIApp:
    """The application; nothing is opened before it is served.

    Args:
        settings: talkgen's; `storage_root` must name a folder.
        config: The application's own.
        generator: Makes the videos; by default what the settings choose.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        chosen = generator or choose_backends(settings).backends.generator
        async with open_host(settings, config, chosen) as host:
            app.state.host = host
            yield

    app = FastAPI(title="talkgen", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.settings, app.state.config = settings, config
    problems.install(app)
    for module in (tasks, streams, metrics):
        app.include_router(module.router)
    # What no route has, not a mount: that would have the word before a route of another method.
    app.router.default = StaticFiles(directory=PAGE, html=True)
    return SecurityHeaders(Ranges(app))  # around all, so that no answer lacks them
