"""What can go wrong in the store. Each error carries what it is about."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of the store."""


class NotFound(StoreError):
    """The resource is not there."""

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        super().__init__(f"{kind} {namespace + '/' if namespace else ''}{name} is not there")
        self.kind, self.namespace, self.name = kind, namespace, name


class AlreadyExists(StoreError):
    """A resource of this kind and name is there already."""

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        super().__init__(f"{kind} {namespace + '/' if namespace else ''}{name} is there already")
        self.kind, self.namespace, self.name = kind, namespace, name


class Conflict(StoreError):
    """The resource has changed since the writer read it."""

    def __init__(self, kind: str, namespace: str, name: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{kind} {name} has changed: the write expected {expected}, the store has {actual}; "
            "read it again and repeat the change"
        )
        self.kind, self.namespace, self.name = kind, namespace, name
        self.expected, self.actual = expected, actual


class Compacted(StoreError):
    """The changes asked for are no longer kept: list anew."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(
            f"changes after revision {after} are no longer kept, the oldest is {oldest}; list anew"
        )
        self.after, self.oldest = after, oldest


class FutureRevision(StoreError):
    """A revision was asked for that this store has not reached."""

    def __init__(self, after: int, current: int) -> None:
        super().__init__(f"revision {after} is ahead of this store, which is at {current}; list anew")
        self.after, self.current = after, current


class Overloaded(StoreError):
    """More writes wait than the store takes, by number or by bytes; try again later."""

    def __init__(self, waiting: int, bytes: int = 0) -> None:
        much = f" with {bytes} bytes" if bytes else ""
        super().__init__(f"{waiting} writes{much} are waiting; try again in a second")
        self.waiting, self.bytes = waiting, bytes


class Unavailable(StoreError):
    """The database failed: disk full, read-only, connection lost. Nothing of the write was kept.

    Unless `known` is false: then the connection or the disk failed in the middle of the commit, and the write
    is there wholly or not at all.
    """

    def __init__(self, cause: str, *, known: bool = True) -> None:
        outcome = "nothing was written" if known else "whether this was written is not known: read it"
        super().__init__(self.told(cause, outcome))
        self.cause, self.known = cause, known

    def told(self, cause: str, outcome: str) -> str:
        """The message: why, and what became of the write."""
        return f"the database failed: {cause}; {outcome}"


class ReadFailed(Unavailable):
    """The database failed when it was opened or only read: there was nothing to write."""

    def told(self, cause: str, outcome: str) -> str:
        return f"the database failed: {cause}"


class NewerSchema(StoreError):
    """The database was written by a newer version of Roost."""

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the database has schema {found}, this version of Roost knows {known}; "
            "start the newer version, or restore a backup made with this one"
        )
        self.found, self.known = found, known
