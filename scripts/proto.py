"""Generate forebay.v1's protobuf code; with --check, say whether the committed code is that."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
SOURCE, PACKAGE = ROOT / "router" / "proto", Path("forebay/v1")


def generate(target: Path) -> None:
    """Write the messages, their types and the service stubs under target/forebay/v1."""
    sources = sorted(str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.proto"))
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    include = Path(protoc.__file__).parent / "_proto"
    if protoc.main(["", f"-I{SOURCE}", f"-I{include}", *outputs, *sources]):
        sys.exit("protoc refused the sources; its message is above")


def differing(target: Path) -> list[str]:
    """Return the generated files that the checkout lacks or holds with another content."""
    made = {p.name: p.read_bytes() for p in (target / PACKAGE).iterdir()}
    kept = {p.name: p.read_bytes() for p in (ROOT / "router" / PACKAGE).glob("*_pb2*")}
    return sorted(name for name in made | kept if made.get(name) != kept.get(name))


def main() -> None:
    """Generate into the checkout, or compare."""
    if sys.argv[1:] != ["--check"]:
        return generate(ROOT / "router")
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        if stale := differing(Path(scratch)):
            sys.exit(f"not freshly generated: {', '.join(stale)}. Mend it: make proto")
    return None


main()
