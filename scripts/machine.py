"""What else the machine must have. Plain stdlib, any python3 from 3.6 on."""

import os
import platform
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024**3


def fault(root: "Path", needed_gib: "float") -> "tuple[str, str]":
    """Return (what is wrong, what to do), both "" where nothing is."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "Triton's wheel is for Linux on x86-64; this is another.", "use such a machine"
    libc = (os.confstr("CS_GNU_LIBC_VERSION") or "none 0.0").replace("glibc ", "")
    if [int(n) if n.isdigit() else 0 for n in libc.split(".")] < [2, 35]:
        return "Triton's wheel needs glibc 2.35 or later.", "use Debian 12 or Ubuntu 22.04 or later"
    free = shutil.disk_usage(str(root)).free / GIB
    if free < needed_gib:
        short = f"{free:.1f} GiB free in {root}, {needed_gib} needed."
        return short, "free some space there (make clean removes what this checkout built)"
    return "", ""
