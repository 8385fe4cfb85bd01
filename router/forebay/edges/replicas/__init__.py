"""Where an engine's replicas are now, watched; each source calls `changed` with the whole set."""

from forebay.edges.replicas.dns import DnsReplicas
from forebay.edges.replicas.file import FileReplicas
from forebay.edges.replicas.static import StaticReplicas

__all__ = ["DnsReplicas", "FileReplicas", "StaticReplicas"]
