"""Ends this process when Triton does, however Triton ends.

A stub whose server was killed waits for messages forever and keeps its memory. The kernel's
parent-death signal would not do: it fires when the *thread* that forked the stub ends, and
Triton loads models on threads that come and go.
"""

import os
import select
import signal
import threading


def follow() -> None:
    """Watch the parent from a thread that sleeps until the parent is gone."""
    parent = os.getppid()
    descriptor = os.pidfd_open(parent)
    if os.getppid() != parent:
        end()
    threading.Thread(target=_wait, args=(descriptor,), name="parent", daemon=True).start()


def _wait(descriptor: int) -> None:
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    while not watch.poll():
        pass
    end()


def end() -> None:
    """End this process at once; Triton reports its requests as failed."""
    os.kill(os.getpid(), signal.SIGKILL)
