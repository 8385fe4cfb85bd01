"""Choose the Python both environments are built on. Plain stdlib, any python3 from 3.6 on."""

import json
import subprocess

NAMES = ("python3", "python3.11", "python3.12")
CANDIDATES = (*NAMES, *("/usr/bin/" + name for name in NAMES))
PROBE = """
import importlib.util as u, json, os, sys, sysconfig as s
lib = os.path.join(s.get_config_var("LIBDIR") or "", s.get_config_var("INSTSONAME") or "")
version = "%d.%d" % sys.version_info[:2]
print(json.dumps((os.path.realpath(sys.executable),
  "it is Python " + version if version not in ("3.11", "3.12")
  else "its venv or ensurepip module is missing" if not (u.find_spec("venv")
    and u.find_spec("ensurepip"))
  else "its shared library (libpython) is missing" if not (".so" in lib and os.path.exists(lib))
  else "")))"""


def probe(command: "str") -> "tuple[str, str]":
    """Return (real path, what it lacks), the latter "" where the interpreter fits."""
    ask = [command, "-I", "-c", PROBE]
    try:
        told = subprocess.check_output(ask, stderr=subprocess.DEVNULL)  # noqa: S603
        path, lack = json.loads(told.decode())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return command, "it does not run"
    return path, lack


def choose(asked: "str") -> "tuple[str, str]":
    """Return (interpreter, "") or ("", sentence): the one asked for, else the first that fits."""
    told = [(name, *probe(name)) for name in ((asked,) if asked else CANDIDATES)]
    fitting = [path for _, path, lack in told if not lack]
    if fitting:
        return fitting[0], ""
    nearest = next((t for t in told if t[2].startswith("its ")), told[0])
    return "", nearest[0] + " does not serve: " + nearest[2]
