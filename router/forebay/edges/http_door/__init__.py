"""The HTTP door: OpenAI-compatible text endpoints, metrics and health on one port."""

from forebay.edges.http_door.server import HttpDoor, HttpSettings

__all__ = ["HttpDoor", "HttpSettings"]
