"""Name the command that brings a fitting Python. Plain stdlib, any python3 from 3.6 on."""

from pathlib import Path

APT_PYTHON = {"bookworm": "3.11", "jammy": "3.11", "noble": "3.12"}


def codename() -> "str":
    """Return the distribution's release name, "" where it has none."""
    try:
        with Path("/etc/os-release").open(encoding="utf-8") as text:
            fields = dict(line.strip().split("=", 1) for line in text if "=" in line)
    except OSError:
        return ""
    return fields.get("VERSION_CODENAME", "").strip('"')


def python_remedy() -> "str":
    """Return the command that brings a fitting Python on this distribution."""
    version = APT_PYTHON.get(codename())
    if version is None:
        return (
            "install Python 3.12 with its shared library, then: make up PYTHON=/path/to/python3.12"
        )
    return f"sudo apt-get install python{version} python{version}-venv libpython{version}"
