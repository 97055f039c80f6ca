"""Threads that must not wait for others, as far as the machine allows that."""

from __future__ import annotations

import os
import threading


def raise_priority() -> str:
    """Run the calling thread before others where that is allowed; what was allowed.

    Only for threads that do little and often: a busy one would keep everything else from running.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "SCHED_FIFO 1"
    except OSError:
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -15)
        return "nice -15"
    except OSError:
        return "as all others"
