"""One build with the stand-ins, in a process of its own that a test can kill.

argv: build, repository, scratch, weights, and the message of progress to stop at, or nothing.
"""

import sys
import time
from pathlib import Path

from standing import toolbox

from enginebuild import build

build_id, repository, scratch, weights, stop_at = sys.argv[1:]


def tell(message: str) -> None:
    """Print it; where it begins as the test says, wait to be killed."""
    print(message, flush=True)
    if stop_at and message.startswith(stop_at):
        print("STOPPED", flush=True)
        time.sleep(300)


built = build(
    build_id,
    repository=Path(repository),
    scratch=Path(scratch),
    weights=Path(weights),
    toolbox=toolbox(Path(scratch).parent),
    progress=tell,
)
print(f"BUILT {built.digest} {built.fresh}", flush=True)
