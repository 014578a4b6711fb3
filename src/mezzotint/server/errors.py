"""Errors as OpenAI's clients expect them: one sentence, the field it is about, a type and a status."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mezzotint.engine import Busy, Expired, Failed, Refused

ALTERNATIVE = re.compile(r"constrained-|\[")
"""In the place of an error: which of several types a value was tried as, which is no field."""
LONGEST_NAME = 200
"""Characters of a client's own field name that are sent back."""
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer other than 200. param: the request's field that is at fault."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None):
        message = message.encode("utf-8", "backslashreplace").decode()
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, dict(self.headers or {}))


def translated(error: Exception) -> ApiError:
    """What a client is told of an engine's error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Busy):
        status = 503 if "shut" in str(error) else 429
        return ApiError(status, str(error), code="busy", headers={"Retry-After": str(round(error.seconds))})
    if isinstance(error, Expired):
        return ApiError(504, str(error), code="deadline_exceeded")
    if isinstance(error, Refused):
        return ApiError(400, str(error), code="context_length_exceeded" if "the limit is" in str(error) else None)
    if isinstance(error, Failed):
        return ApiError(500, str(error), code="run_failed")
    return ApiError(500, f"internal error ({type(error).__name__})")


def validation(error: RequestValidationError) -> ApiError:
    """The first thing that is wrong with a body, naming its field."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body" and not ALTERNATIVE.search(str(part)))[:LONGEST_NAME]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{where} is not supported", where, "unsupported_field")
    return ApiError(400, f"{where or 'the body'}: {first['msg']}", where or None)


def install(app: FastAPI) -> None:
    """Every error of the application in this form."""

    async def on_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return validation(error).response

    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        return ApiError(error.status_code, str(error.detail), headers=error.headers).response

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        return translated(error).response

    app.add_exception_handler(RequestValidationError, on_validation)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, on_http)  # type: ignore[arg-type]
    for kind in (ApiError, Busy, Expired, Refused, Failed, Exception):
        app.add_exception_handler(kind, on_error)
