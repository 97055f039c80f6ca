"""Whatever is sent to the API: it answers, refuses in its form, changes nothing then, and stays small.

`serving` is the server in a process of its own, with the rules and subresources of a real cloud. `wire` sends
anything over TLS, and reads what comes back. `promises` are what every answer must keep. `paths`, `headers`
and `bodies` make requests by chance; `test_found` holds the smallest form of what was found.

ROOST_FUZZ=20 runs twenty times as many examples as usual.
"""

import os

TIMES = float(os.environ.get("ROOST_FUZZ", "1"))


def examples(usual: int) -> int:
    """How many examples to try."""
    return max(1, int(usual * TIMES))
