"""Refusals as the Kubernetes API conventions want them: one `Status` object per error.

Every error says what it is about, why, and the next step. How refusals map to codes:

- 400 BadRequest: the request can't be understood (JSON, parameters, unknown fields under Strict);
- 401 Unauthorized: no credential, or one that opens nothing;
- 403 Forbidden: the caller's role, the owner of the field, the home of the resource, or a rule of its
  domain does not allow it (causes: `Refused` with the reason, `Remedy` with the next step);
- 404 NotFound, 405 MethodNotAllowed, 409 AlreadyExists or Conflict (the resource has changed since);
- 410 Expired: the revision is no longer kept, list anew;
- 413, 414, 415, 429 (with Retry-After), 503;
- 422 Invalid: a field has a value it can't have; one cause per field.

Conflict is kept for "changed since": clients repeat those by themselves, so a refusal by a rule is
never a 409.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from roost.engine.admission import Refused
from roost.model.codec import Raw
from roost.model.kind import KindInfo, Problem
from roost.store import errors

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    408: "Timeout",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    414: "RequestURITooLong",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    431: "RequestHeaderFieldsTooLarge",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class ApiError(Exception):
    """An answer other than success. `causes` are Kubernetes status causes."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: Raw | None = None,
        causes: Sequence[Raw] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or REASONS.get(code, "Unknown")
        self.details = dict(details or {})
        if causes:
            self.details["causes"] = list(causes)
        self.headers = dict(headers or {})

    def body(self) -> Raw:
        """The Status object."""
        status: Raw = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status

    def response(self) -> Response:
        """The Status as an HTTP response."""
        content = msgspec.json.encode(self.body())
        return Response(content, self.code, headers=self.headers, media_type="application/json")


def warning(text: str) -> str:
    """Value of a Warning header, which kubectl prints beside the result."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{escaped}"'


def resource_name(info: KindInfo) -> str:
    """`hosts.roost.edge`, as messages name a kind."""
    return info.resource


def about(info: KindInfo, name: str = "") -> Raw:
    """`details` that name a resource."""
    details: Raw = {"group": info.group, "kind": info.plural} if info.group else {"kind": info.plural}
    return {"name": name, **details} if name else details


def bad_request(message: str, causes: Sequence[Raw] = ()) -> ApiError:
    return ApiError(400, message, causes=causes)


def not_found(info: KindInfo, name: str) -> ApiError:
    return ApiError(404, f'{resource_name(info)} "{name}" not found', details=about(info, name))


def no_such_path() -> ApiError:
    return ApiError(404, "the server could not find the requested resource")


def not_allowed(method: str, path: str) -> ApiError:
    return ApiError(405, f"{method} is not served at {path}; see /apis for what is")


def forbidden(info: KindInfo, name: str, reason: str, remedy: str) -> ApiError:
    """Refused for what it is or where it lives: the reason and the next step."""
    return ApiError(
        403,
        f'{resource_name(info)} "{name}" is forbidden: {reason}; {remedy}',
        details=about(info, name),
        causes=[{"reason": "Refused", "message": reason}, {"reason": "Remedy", "message": remedy}],
    )


def invalid(info: KindInfo, name: str, problems: Sequence[Problem]) -> ApiError:
    """One or several fields have values that they can't have."""
    texts = [f"{p.reason}; {p.remedy}" if p.remedy else p.reason for p in problems]
    causes: list[Raw] = [
        {"reason": "FieldValueInvalid", "message": text, "field": p.field}
        for p, text in zip(problems, texts, strict=True)
    ]
    lines = [f"{p.field}: {text}" if p.field else text for p, text in zip(problems, texts, strict=True)]
    listed = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    return ApiError(
        422,
        f'{info.kind}{"." if info.group else ""}{info.group} "{name}" is invalid: {listed}',
        details={**about(info, name), "kind": info.kind},
        causes=causes,
    )


def refused(info: KindInfo, name: str, refusal: Refused) -> ApiError:
    """A rule of the kind's domain said no: 422 when it points at a field, else 403."""
    if refusal.field:
        return invalid(info, name, [Problem(refusal.field, refusal.reason, refusal.remedy)])
    return forbidden(info, name, refusal.reason, refusal.remedy)


def from_store(error: errors.StoreError, info: KindInfo | None) -> ApiError:
    """What the store could not do, as an answer."""
    match error:
        case errors.NotFound() if info:
            return not_found(info, error.name)
        case errors.AlreadyExists() if info:
            return ApiError(
                409,
                f'{resource_name(info)} "{error.name}" already exists',
                reason="AlreadyExists",
                details=about(info, error.name),
            )
        case errors.Conflict() if info:
            return ApiError(
                409,
                f'Operation cannot be fulfilled on {resource_name(info)} "{error.name}": {error}',
                details=about(info, error.name),
            )
        case errors.Compacted() | errors.FutureRevision():
            return ApiError(410, str(error))
        case errors.Overloaded():
            return ApiError(429, str(error), details={"retryAfterSeconds": 1}, headers={"Retry-After": "1"})
        case errors.Unavailable():
            return ApiError(503, str(error))
        case _:
            return ApiError(500, "the server could not carry this out; its log has the cause")
