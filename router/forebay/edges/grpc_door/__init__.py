"""The gRPC door: `forebay.v1.Router`, KServe v2, health and reflection on one port."""

from forebay.edges.grpc_door.server import GrpcDoor, GrpcSettings

__all__ = ["GrpcDoor", "GrpcSettings"]
