"""Status objects of the API made into one clear problem: field, reason, remedy. Pure."""

from __future__ import annotations

import re

import msgspec

from roost.cli import answers
from roost.cli.problems import Contested, Denied, Expired, NotFound, Problem, Refused, Unreachable
from roost.model.registry import KINDS

_ASK = "; ask an administrator"
_WRITES = re.compile(r'cannot (?:patch|update) resource "([a-z]+)" in API group')


def problem_of(code: int, body: bytes, doing: str) -> Problem:
    """The problem that an answer with an error code tells of; `doing` is a phrase like `read host x`."""
    status = _status(code, body)
    message = (status.message or f"the server answered {code}").rstrip(".")
    details = causes(status)
    if details and all(d in message or d.split(": ", 1)[-1] in message for d in details):
        details = ()
    match code:
        case 401:
            return Denied(
                f"can't {doing}: the cloud does not accept these credentials: {message}",
                "log in again with `roost login`, or choose another cloud with --cloud",
            )
        case 403 if _by_rule(status):
            reason, remedy = _by_rule(status)
            return Refused(f"can't {doing}: {reason}", remedy)
        case 403:
            reason = message.removesuffix(_ASK)
            remedy = "ask an administrator of this cloud for a role that may"
            return Denied(f"can't {doing}: {reason}", remedy + _or_operate(reason), details=details)
        case 404:
            return NotFound(message, details=details)
        case 410:
            return Expired(message)
        case 409 if status.reason == "AlreadyExists":
            return Refused(message, "choose another name, or change it with `roost apply`", details=details)
        case 409 if any(c.reason == "FieldManagerConflict" for c in _causes(status)):
            if details:
                # Several: Kubernetes' message lists them as well, by manager.
                message = message.partition(": conflicts with")[0]
            return Contested(f"can't {doing}: {message}", details=details)
        case 400 | 405 | 409 | 413 | 415 | 422:
            return Refused(f"can't {doing}: {message}", details=details)
        case 429:
            return Refused(f"can't {doing}: {message}", "the cloud is busy; try again in a moment")
        case 502 | 503 | 504:
            return Unreachable(
                f"can't {doing}: {message}", "try again; `roost status` shows what is reachable"
            )
        case _:
            return Refused(
                f"can't {doing}: the server answered {code}: {message}",
                "the log of the cloud's process says more",
                details=details,
            )


def causes(status: answers.Status) -> tuple[str, ...]:
    """One line for each cause."""
    if status.details is None:
        return ()
    return tuple(
        f"{c.field}: {c.message}" if c.field else c.message for c in status.details.causes if c.message
    )


def _or_operate(reason: str) -> str:
    """That the verb `operate` is enough, for kinds that have fields for operating them."""
    found = _WRITES.search(reason)
    operating = next((i.operating for i in KINDS if found and i.plural == found[1]), ())
    if not operating:
        return ""
    *first, last = operating
    fields = f"{', '.join(first)} and {last}" if first else last
    return f"; for {fields} the verb operate is enough"


def retry_after(code: int, body: bytes, header: str) -> float | None:
    """Seconds after which the server wants to be asked again, or None when it does not say so."""
    if code not in (429, 503):
        return None
    if header.isdigit():
        return float(header)
    status = _status(code, body)
    if status.details and status.details.retry_after_seconds:
        return float(status.details.retry_after_seconds)
    return 1.0 if code == 429 else None


def _causes(status: answers.Status) -> list[answers.Cause]:
    return status.details.causes if status.details else []


def _by_rule(status: answers.Status) -> tuple[str, ...]:
    """Reason and remedy when a rule of the cloud said no, rather than the caller's role; else nothing."""
    told = {c.reason: c.message for c in _causes(status)}
    return (told["Refused"], told.get("Remedy", "")) if "Refused" in told else ()


def _status(code: int, body: bytes) -> answers.Status:
    try:
        return msgspec.json.decode(body, type=answers.Status)
    except msgspec.MsgspecError:
        text = body[:200].decode(errors="replace").strip().splitlines()
        return answers.Status(code=code, message=text[0] if text else "")
