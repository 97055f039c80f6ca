"""How a session ended, from what its tasks raised."""

from __future__ import annotations

from collections.abc import Iterator

from roost.link.errors import ConnectionLost, LinkError
from roost.store.errors import StoreError


class Over(LinkError):
    """The session ended in good order."""


async def fail(error: LinkError) -> None:
    """Work of a session that ends it."""
    raise error


def failure_of(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """What ended the session; None for a good end. What nobody expected stays as it is."""
    errors = list(_leaves(group))
    for error in errors:
        if not isinstance(error, LinkError | StoreError | TimeoutError):
            return group
    if any(isinstance(error, Over) for error in errors):
        return None
    first = errors[0]
    return first if isinstance(first, LinkError) else ConnectionLost(str(first) or "a deadline passed")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors of a group, in the order in which its tasks failed."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
