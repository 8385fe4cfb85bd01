"""Replicas that a file lists: YAML or JSON, watched for change.

The content is what is compared: a clock that is too coarse, or a size that stays, hides no
edit. An edit counts once two looks in a row read the same, so that a file caught half
written removes no replica; one that is wrong leaves the last good list in force.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
import yaml

from forebay.errors import SettingsError
from forebay.policy.replicas import ReplicaAddress, misread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PERIOD_S = 1.0
SIZE_MAX = 128 << 10
REPLICAS_MAX = 1024

_log = structlog.get_logger("forebay.replicas")


class FileReplicas:
    """Reads a file over and over."""

    def __init__(
        self,
        path: Path,
        changed: Callable[[frozenset[ReplicaAddress]], None],
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        """Watch `path`; `changed` is given the whole set whenever it differs from the last."""
        self._path = path
        self._changed = changed
        self._period_s = period_s
        self._known: frozenset[ReplicaAddress] | None = None
        self._seen: bytes | None = None
        self._read: bytes | None = None
        self._failing: str | None = None

    def read(self) -> frozenset[ReplicaAddress]:
        """Return what the file lists now; for a check at start.

        Raises:
            SettingsError: all that is wrong with it, a line each.
        """
        return listed(self._content(), self._path)

    async def run(self) -> None:
        """Look every `period_s` until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(self._period_s)

    async def once(self) -> None:
        """Look once, and tell a set that is new."""
        try:
            replicas = await asyncio.to_thread(self._settled)
        except SettingsError as error:
            self._failed(str(error))
            return
        if replicas is None:
            return
        self._failing = None
        if replicas != self._known:
            self._known = replicas
            addresses = sorted(replica.address for replica in replicas)
            _log.info("replicas", file=str(self._path), addresses=addresses)
            self._changed(replicas)

    def _settled(self) -> frozenset[ReplicaAddress] | None:
        """Return the list if its text is new and was the same at the last look, else None."""
        content = self._content()
        first, self._seen = self._seen, content
        if content == self._read or (first is not None and first != content):
            return None
        # Noted before it is read: what is wrong is told once, not at every look.
        self._read = content
        return listed(content, self._path)

    def _content(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                content = file.read(SIZE_MAX + 1)
        except OSError as error:
            self._seen, self._read = b"", None
            raise SettingsError(f"{self._path}: cannot be read: {error.strerror}") from None
        return content

    def _failed(self, why: str) -> None:
        if why != self._failing:
            kept = 0 if self._known is None else len(self._known)
            _log.warning("replicas not read", file=str(self._path), why=why, kept=kept)
        self._failing = why


class _Loader(yaml.SafeLoader):
    """Every scalar is text: a host is no number, and a port no time of day."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute


def listed(content: bytes, path: Path) -> frozenset[ReplicaAddress]:
    """Return the replicas that a file's content lists.

    Raises:
        SettingsError: all that is wrong with it, each with line and column.
    """
    if len(content) > SIZE_MAX:
        raise SettingsError(f"{path}:1:1: the file is larger than {SIZE_MAX:,} bytes")
    try:
        root = _Loader(content.decode("utf-8-sig")).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise SettingsError(f"{path}:{place}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        # ValueError: not UTF-8; it and OverflowError: an escape of no character.
        raise SettingsError(f"{path}:1:1: not valid YAML") from None
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise SettingsError(f"{path}:1:1: expected a list of replicas, each {_FORM}")
    if len(root.value) > REPLICAS_MAX:
        raise SettingsError(f"{path}:1:1: lists more than {REPLICAS_MAX:,} replicas")
    wrong: list[str] = []
    items = [_item(node, path, wrong) for node in root.value]
    if not wrong:
        told = misread((_word(item, "address"), _page(item)) for item in items)
        wrong = [f"{path}:{_place(items[t.item][t.key][1])}: {t.message}" for t in told]
    if wrong:
        raise SettingsError("\n".join(wrong))
    return frozenset(
        ReplicaAddress(_word(item, "address"), _page(item), _word(item, "drain") == "true")
        for item in items
    )


_FORM = "host:port or {address: host:port, metrics: URL, drain: true}"
_KEYS = ("address", "metrics", "drain")

_Item = dict[str, tuple[str, yaml.Node]]


def _word(item: _Item, key: str) -> str:
    return item[key][0] if key in item else ""


def _page(item: _Item) -> str | None:
    return _word(item, "metrics") if "metrics" in item else None


def _item(node: yaml.Node, path: Path, wrong: list[str]) -> _Item:
    """Return one item's keys, each with its text and where it stands; notes what is wrong."""
    if isinstance(node, yaml.ScalarNode):
        return {"address": (node.value, node)}
    found: _Item = {}
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name not in _KEYS:
            wrong.append(f"{path}:{_place(key)}: unknown key; known: {', '.join(_KEYS)}")
        elif name in found:
            wrong.append(f"{path}:{_place(key)}: the key {name} is here twice")
        elif not isinstance(value, yaml.ScalarNode):
            wrong.append(f"{path}:{_place(value)}: expected a word")
        elif name == "drain" and value.value not in ("true", "false"):
            wrong.append(f"{path}:{_place(value)}: expected true or false")
        else:
            found[name] = (value.value, value)
    if "address" not in found:
        wrong.append(f"{path}:{_place(node)}: expected {_FORM}")
    return found


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"
