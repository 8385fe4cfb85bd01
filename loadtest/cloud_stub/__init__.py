"""A paced server that speaks OpenAI's API on loopback: the cloud of load tests and of tests.

    python -m loadtest.cloud_stub --port 0 --seed 1

prints `{"url": "http://127.0.0.1:PORT/v1"}` as one line once it listens, and serves until told to
stop. An answer's first token comes after a seeded, lognormal time with a rare pause of seconds;
each later one comes at its own moment of a schedule made when the request came, so that a stream
does not drift, and tokens that fell due together leave in one write.

`GET /stats` counts: requests, active, cancelled, faults, tokens, and `cpu_s`, the process's CPU
time. By it 1,000 tokens take about 27 ms of CPU with 100 streams at the usual pace (4,300 tokens
a second, an eighth of a core) and 70 ms with 10 streams, measured on two busy x86 cores.

A fault is asked for by the model's name after a plus (`any+500`), by the header `x-stub-fault`,
or by `--fault` for every request: see `bodies.FAULTS`.
"""

from loadtest.cloud_stub.server import Pace, Stats, Stub, serving

__all__ = ["Pace", "Stats", "Stub", "serving"]
