"""Turn a pip log into what happened and what mends it."""

import re

UNREACHABLE = (
    "NewConnectionError|name resolution|Connection refused|ConnectTimeout|Read timed out|"
    "Network is unreachable|Connection broken|Connection reset|ProxyError"
)
CAUSES = {
    "No space left on device": (
        "The disk is full.",
        "free 3 GiB there and in $TMPDIR, then run the same command again",
    ),
    "DO NOT MATCH THE HASHES": (
        "The package index serves another file than the one locked.",
        "pip cache purge; if it stays so, the index or a mirror altered it: do not install it",
    ),
    "CERTIFICATE_VERIFY_FAILED|SSLError": (
        "The package index's certificate is not trusted.",
        "set PIP_CERT to your proxy's certificate, then run the same command again",
    ),
    UNREACHABLE: (
        "The package index cannot be reached.",
        "check the network, PIP_INDEX_URL and HTTPS_PROXY, then run it again: downloads are kept",
    ),
    "No matching distribution": (
        "The package index lacks a locked package for this Python.",
        "point PIP_INDEX_URL at a complete index, then run the same command again",
    ),
}


def explain(log: str) -> tuple[str, str]:
    """Return (what happened, what to do) for a failed run."""
    for marks, told in CAUSES.items():
        if re.search(marks, log):
            return told
    return "It failed; the end of its log is above.", "mend what it says, then run this again"
