"""Errors as problem details (RFC 9457): what happened, and what to do about it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from talkgen import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

__all__ = ["INTERNAL", "Problem", "install", "is_public", "response_to"]

logger = logging.getLogger("studio")

BUSY_SECONDS = 10  # when to come again, where nobody knows better

# The nearest class in an error's ancestry decides. What is not here is the server's own fault.
STATUS: Mapping[type[Exception], HTTPStatus] = {
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NoPersonDetected: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PersonNotFound: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidMedia: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Moderated: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TalkRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.BudgetExceeded: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TaskNotFound: HTTPStatus.NOT_FOUND,
    errors.FileMissing: HTTPStatus.NOT_FOUND,
    errors.TaskBusy: HTTPStatus.CONFLICT,
    errors.TaskConflict: HTTPStatus.CONFLICT,
    errors.RunCancelled: HTTPStatus.CONFLICT,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutOfMemory: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InsufficientStorage: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.DIdError: HTTPStatus.BAD_GATEWAY,
    errors.RateLimited: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ServiceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

# Whose words are for everybody. Those of others may name this machine's folders: they are logged.
PUBLIC = (
    errors.InvalidInput,
    errors.NoPersonDetected,
    errors.PersonNotFound,
    errors.DIdError,
    errors.BudgetExceeded,
    errors.TaskNotFound,
    errors.TaskBusy,
    errors.TaskConflict,
    errors.RunCancelled,
    errors.Overloaded,
    errors.OutOfMemory,
)
INTERNAL = "Something went wrong here."


class Problem(Exception):
    """A request that is refused by the application itself.

    Attributes:
        status: Of the answer.
        detail: What is wrong, for people.
        hint: What to do about it.
        extra: Further members of the answer.
    """

    def __init__(
        self, status: HTTPStatus, detail: str, *, hint: str | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.extra = extra


def is_public(error_type: str) -> bool:
    """Whether an error of this class, by its name in `talkgen.errors`, is told in its own words."""
    return issubclass(getattr(errors, error_type, Exception), PUBLIC)


def install(app: FastAPI) -> None:
    """Answer every error in the one form."""
    for kind in (Problem, errors.TalkgenError, ValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _handled)


async def _handled(_request: Request, error: Exception) -> Response:
    return response_to(error)


def response_to(error: Exception) -> Response:
    """The problem that an error is."""
    match error:
        case Problem():
            return _response(error.status, error.detail, hint=error.hint, **error.extra)
        case errors.TalkgenError():
            return _of_talkgen(error)
        case ValidationError():
            return _of_fields(error)
        case HTTPException():
            return _response(HTTPStatus(error.status_code), error.detail, error.headers)
        case _:  # logged by the server; its text is nobody else's business
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL)


def _of_talkgen(error: errors.TalkgenError) -> Response:
    own = HTTPStatus.INTERNAL_SERVER_ERROR
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), own)
    headers = {}
    told = isinstance(error, PUBLIC)
    if not told and error.task_id is None:  # a task's own is logged when it ends
        logger.error("An answer without its reason: %s", error, exc_info=error)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(round(error.retry_after or BUSY_SECONDS))
    return _response(
        status,
        str(error) if told else INTERNAL,
        headers,
        hint=error.hint if told else None,
        error_type=type(error).__name__,
        severity=error.severity.value,
        stage=error.stage,
        task_id=error.task_id,
    )


def _of_fields(error: ValidationError) -> Response:
    wrong = [
        {"field": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()
    ]
    detail = "; ".join(f"{one['field']}: {one['message']}" for one in wrong)
    return _response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, fields=wrong)


def _response(
    status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None, **extra: Any
) -> Response:
    if status is HTTPStatus.NO_CONTENT:
        return Response(status_code=status)
    about = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    told = {name: value for name, value in extra.items() if value is not None}
    return JSONResponse({**about, **told}, status, headers, media_type="application/problem+json")
