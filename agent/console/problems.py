"""What is answered where a request cannot be: problem details, as RFC 9457 has them."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from agent.errors import DatabaseAwayError, InputError

__all__ = ["Problem", "add_problems", "documented", "problem"]

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5  # the database is looked for again that often elsewhere too

log = structlog.get_logger(__name__)


class Problem(BaseModel):
    """Why a request was not answered. `title` tells the kind, `detail` is a sentence for people."""

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    detail: str


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong.

    Args:
        status: The HTTP status.
        detail: One sentence without a secret, nor a word that somebody said.
    """
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(body.model_dump(), status, dict(headers or {}), MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of an endpoint that are problems, for its description."""
    schema = Problem.model_json_schema()
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def add_problems(app: FastAPI) -> None:
    """Have an application answer all that goes wrong in it as problem details."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(InputError, _unusable)
    app.add_exception_handler(DatabaseAwayError, _away)
    app.add_exception_handler(Exception, _failed)  # `gate.Gate` calls it


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), error.headers)


def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = " ".join(str(part) for part in first["loc"])
    return problem(422, f"{place} is wrong: {first['msg']}")  # the value itself is left out


def _unusable(_request: Request, error: Exception) -> Response:
    return problem(400, str(error))


def _away(_request: Request, error: Exception) -> Response:
    log.warning("console.database_away", problem=str(error))
    detail = "The database cannot be used for now; nothing is lost. Try again in some seconds."
    return problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})


def _failed(_request: Request, _error: Exception) -> Response:
    return problem(500, "This failed for a reason that the log of the console tells.")
