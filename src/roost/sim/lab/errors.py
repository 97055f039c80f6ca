"""What can go wrong in the laboratory: the reason and the next step, always both."""

from __future__ import annotations


class LabError(Exception):
    """The laboratory cannot do what was asked. `reason` says why, `remedy` says what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class ProcessFailed(LabError):
    """A process kept dying before it was ready. `tail` holds the last lines it wrote."""

    def __init__(self, name: str, reason: str, tail: list[str], log: str) -> None:
        said = "\n  ".join(tail) if tail else "(it wrote nothing)"
        super().__init__(f"{name} {reason}. Its last lines:\n  {said}\n", f"read {log}")
        self.name = name
        self.tail = tail
