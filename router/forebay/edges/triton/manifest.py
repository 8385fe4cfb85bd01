"""What the manifest beside an engine says of it, and that the files beside it are its own.

The builder wrote it (`enginebuild.manifest`); it is read here for itself, so that a router needs
no builder. The same facts stand as parameters in `config.pbtxt`, under the names used here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forebay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST = "manifest.json"
DIGEST = "engine_manifest_digest"
READ = {
    "tokenizer.json": "prompts would become other tokens than the model knows",
    "chat_template.jinja": "conversations would be laid out as the model was not trained",
    "engine.json": "its limits and token ids would be another engine's",
}
"""The files of an engine that the router reads, each with what another one would do."""

TEXT_ONLY = "llmapi"
"""The builder whose Triton model has text in and text out, and no tensor for token ids."""

_SAID = ("build", "model", "profile", "precision", "tp", "pp", "kv_tokens")


@dataclass(frozen=True, slots=True)
class Stated:
    """An engine as its manifest has it. `parameters` are those that `config.pbtxt` repeats."""

    folder: str
    parameters: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Return what names the engine by content."""
        return self.parameters[DIGEST]


def read(folder: Path) -> Stated | None:
    """Return what the manifest in `folder` says, or None where there is no manifest.

    Raises:
        SettingsError: it was changed, or a file that the router reads is not the engine's own.
    """
    path = folder / MANIFEST
    try:
        said: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    if said["digest"] != _digest({key: said[key] for key in said if key != "digest"}):
        raise SettingsError(
            f"{path} was changed after the build: its digest is another. Put the engine's own "
            "back, or build the engine again with `forebay engines build`"
        )
    if said["builder"] == TEXT_ONLY:
        raise SettingsError(
            f"{folder} holds {said['build']}, whose model in Triton takes text, and this router "
            "calls engines by token ids. Let clients call that Triton themselves, or name a build "
            "of the builder trtllm"
        )
    for name, harm in READ.items():
        found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if found != (stated := said["files"][name]["sha256"]):
            raise SettingsError(
                f"{folder / name} is not the one this engine was built with: {harm} (its SHA-256 "
                f"is {found[:12]}, and the manifest has {stated[:12]}). Put the engine's own back, "
                "or build the engine again with `forebay engines build`"
            )
    return Stated(str(folder), _parameters(said))


def _digest(body: Mapping[str, Any]) -> str:
    """Return the digest of a manifest without it: of its length and its canonical JSON."""
    raw = (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()
    return hashlib.sha256(len(raw).to_bytes(8, "big") + raw).hexdigest()


def _parameters(said: Mapping[str, Any]) -> dict[str, str]:
    files: Mapping[str, Any] = said["files"]
    found = {
        "sm": (said.get("gpu") or {}).get("sm"),
        **{f"version_{name}": version for name, version in said.get("tools", {}).items()},
        "tokenizer_sha256": files["tokenizer.json"]["sha256"],
        "chat_template_sha256": files["chat_template.jinja"]["sha256"],
        **{name: most for name, most in said["limits"].items() if name.startswith("max_")},
        **{name: said.get(name) for name in _SAID},
        "manifest_digest": said["digest"],
    }
    return {f"engine_{name}": str(value) for name, value in found.items() if value is not None}
