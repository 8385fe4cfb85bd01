"""`forebay top`: live classes, targets, queues and KV cache, from the router's own metrics."""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from typing import TYPE_CHECKING

import click
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from forebay.cli.client import HOST
from forebay.edges.router_process import reached_at

if TYPE_CHECKING:
    from collections.abc import Mapping

Series = dict[str, dict[tuple[tuple[str, str], ...], float]]
"""Values by sample name, then by sorted labels."""


SCRAPED = "scraped"
OWN_ONLY = "own in flight only"
"""How an engine's load is known."""

REFUSED = "(refused)"
"""Stands for the class of requests that ended before they had one."""


def read(url: str) -> Series:
    """Return every sample of a metrics page.

    Raises:
        OSError: nobody answers there.
        HTTPException, ValueError: what answers there is no page of metrics.
    """
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - built from a host and port
            page = response.read().decode()
    except urllib.error.HTTPError as error:
        error.close()
        raise ValueError(f"status {error.code}") from None
    series: Series = defaultdict(dict)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            series[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    return series


def classes(now: Series, before: Series, seconds: float) -> list[dict[str, object]]:
    """Return a row for each class and target: rates over the interval, means since the start."""
    totals: dict[tuple[str, str], float] = defaultdict(float)
    earlier: dict[tuple[str, str], float] = defaultdict(float)
    failed: dict[tuple[str, str], float] = defaultdict(float)
    for into, series in ((totals, now), (earlier, before)):
        for labels, value in series.get("forebay_requests_total", {}).items():
            said = dict(labels)
            into[said["route"], said["target"]] += value
            if into is totals and said["status"] != "ok":
                failed[said["route"], said["target"]] += value
    return [
        {
            "class": route or REFUSED,
            "target": target or "-",
            "requests": int(count),
            "per_s": (count - earlier[route, target]) / seconds if before else 0.0,
            "not_ok": int(failed[route, target]),
            "ttft_ms": _mean_ms(now, "ttft", route, target),
            "tpot_ms": _mean_ms(now, "tpot", route, target),
        }
        for (route, target), count in sorted(totals.items())
    ]


def engines(now: Series) -> list[dict[str, object]]:
    """Return a row for each engine: how its load is known, and what its metrics said last.

    An engine whose metrics page never told its load is known by our own requests alone.
    """
    told: dict[str, dict[str, object]] = defaultdict(dict)
    for labels, value in now.get("forebay_engine", {}).items():
        said = dict(labels)
        told[said["engine"]][said["what"]] = value
    silent = {dict(labels)["engine"] for labels in now.get("forebay_serves", {})} - set(told)
    return [
        {"engine": name, "load": OWN_ONLY if name in silent else SCRAPED, **told.get(name, {})}
        for name in sorted(silent | set(told))
    ]


def inflight(now: Series) -> dict[str, int]:
    """Return the router's own requests in flight at each target."""
    return {dict(k)["target"]: int(v) for k, v in now.get("forebay_inflight", {}).items()}


def waiting(now: Series) -> dict[str, int]:
    """Return the requests in the router's own queue, for each pool of engines."""
    return {dict(k)["pool"]: int(v) for k, v in now.get("forebay_waiting", {}).items()}


def _mean_ms(now: Series, name: str, route: str, target: str) -> float | None:
    key = (("route", route), ("target", target))
    count = now.get(f"forebay_{name}_seconds_count", {}).get(key, 0)
    total = now.get(f"forebay_{name}_seconds_sum", {}).get(key, 0)
    return total / count * 1000 if count else None


def _screen(now: Series, before: Series, seconds: float) -> Group:
    return Group(
        _table("classes", classes(now, before, seconds)),
        _table("engines", engines(now)),
        _table("own in flight", [{"target": k, "inflight": v} for k, v in inflight(now).items()]),
        _table("router's queue", [{"pool": k, "waiting": v} for k, v in waiting(now).items()]),
    )


def _table(title: str, rows: list[dict[str, object]]) -> Table:
    table = Table(title=title, title_justify="left", expand=False)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns or ["nothing yet"]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@click.command()
@click.option(
    "--http-port",
    envvar="FOREBAY_HTTP_PORT",
    default=8080,
    show_default=True,
    type=click.IntRange(1, 65535),
)
@HOST
@click.option("--every-s", default=1.0, show_default=True, type=click.FloatRange(0.2, 3600))
@click.option("--json", "as_json", is_flag=True, help="one JSON object, then end")
def top(host: str, http_port: int, every_s: float, *, as_json: bool) -> None:
    """Show live classes, targets, queues and KV cache until Ctrl-C."""
    url = f"http://{reached_at(host, http_port)}/metrics"
    try:
        now = read(url)
        if as_json:
            whole: Mapping[str, object] = {
                "classes": classes(now, {}, 1.0),
                "engines": engines(now),
                "inflight": inflight(now),
                "waiting": waiting(now),
            }
            print(json.dumps(whole))
            return
        with Live(_screen(now, {}, every_s), console=Console(), screen=False) as live:
            while True:
                time.sleep(every_s)
                before, now = now, read(url)
                live.update(_screen(now, before, every_s))
    except (http.client.HTTPException, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        print(f"forebay: {url} gives no metrics of a router ({said})", file=sys.stderr)
        sys.exit(1)
    except OSError:
        print(f"forebay: no router answers at {url}; start one with `make up`", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        return
