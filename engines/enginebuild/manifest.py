"""The manifest beside an engine: what it was made from, what it accepts, what its files are."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebuild.errors import BuildError

MANIFEST = "manifest.json"
ENGINE = "engine.json"
TEXT = ("tokenizer.json", "chat_template.jinja")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Built:
    """An engine in its place. `fresh` is False where nothing had to be made."""

    build_id: str
    engine: Path
    digest: str
    fresh: bool


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def text_sha256(*texts: str) -> str:
    """Return one SHA-256 over texts in order; where one ends and the next begins counts."""
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()


def write(folder: Path, about: Mapping[str, Any]) -> str:
    """Write the manifest of every file in `folder` and return its digest.

    The digest covers all of the manifest but itself, so it names the engine by content.
    """
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    body = {**about, "files": files}
    digest = text_sha256(canonical(body))
    (folder / MANIFEST).write_text(canonical({**body, "digest": digest}), encoding="utf-8")
    return digest


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of an installed engine.

    Raises:
        BuildError: if there is none, or it is not one.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BuildError(f"{folder} holds no engine: {MANIFEST} is missing") from error
    except ValueError as error:
        raise BuildError(f"{path} is not a manifest: {error}") from error
    if not isinstance(found, dict):
        raise BuildError(f"{path} is not a manifest: it holds no object")
    return found


def named(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of config.pbtxt by which a client knows the engine and its text."""
    files = found["files"]
    texts = {name: files[name]["sha256"] for name in TEXT if name in files}
    said = {f"engine_{Path(name).stem}_sha256": digest for name, digest in texts.items()}
    return {"engine_manifest_digest": found["digest"], **said}


def verify(folder: Path) -> str:
    """Return the digest of an engine whose every file is as the manifest says.

    Raises:
        BuildError: naming the file that is missing, changed, or not in the manifest.
    """
    found = read(folder)
    stated = found.pop("digest", None)
    if stated != text_sha256(canonical(found)):
        raise BuildError(f"{folder / MANIFEST} was changed after the build: its digest differs")
    files: dict[str, dict[str, Any]] = found["files"]
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise BuildError(f"{path} is missing; rebuild the engine")
        if file_sha256(path) != expected["sha256"]:
            raise BuildError(f"{path} differs from the one that was built; rebuild the engine")
    stray = {path.name for path in folder.iterdir()} - set(files) - {MANIFEST}
    if stray:
        raise BuildError(f"{folder} holds files the build did not make: {', '.join(sorted(stray))}")
    return str(stated)


def canonical(body: Mapping[str, Any]) -> str:
    """Return JSON that is the same for the same content."""
    return json.dumps(body, indent=2, sort_keys=True) + "\n"
