"""`forebay up`: the engine built, Triton and the router kept serving, in the foreground."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import signal
import sys
import time
from pathlib import Path

import click

from enginebuild import BuildError, build
from enginebuild.toolbox import Toolbox
from forebay import wiring
from forebay.edges.router_process import LOOPBACK, reached, reached_at
from forebay.errors import SettingsError
from forebay.stack import Stack, StackSettings, State, alone, require_free

CHECKOUT = Path(__file__).resolve().parents[3]
PORTS = {
    "FOREBAY_GRPC_PORT": 50051,
    "FOREBAY_HTTP_PORT": 8080,
    "FOREBAY_TRITON_GRPC_PORT": 8001,
    "FOREBAY_TRITON_HTTP_PORT": 8000,
    "FOREBAY_TRITON_METRICS_PORT": 8002,
}
TRY = """  .venv/bin/forebay ask "Summarise: a dam stores water." --task summarize
  curl -s {at}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
  .venv/bin/forebay top"""


class Teller:
    """Tells a person, or a program with --json, what happens, after the seconds since the start."""

    def __init__(self, *, as_json: bool, ports: dict[str, int], host: str) -> None:
        self._began_s = time.monotonic()
        self._as_json = as_json
        self._ports = ports
        self._host = "localhost" if reached(host) == LOOPBACK else host

    def __call__(self, state: State) -> None:
        """Print one line; when the whole stack serves, what to try as well."""
        elapsed_s = time.monotonic() - self._began_s
        ready = state.name == "stack" and state.phase == "serving"
        if self._as_json:
            fields = {"elapsed_s": round(elapsed_s, 2), **dataclasses.asdict(state)}
            print(json.dumps(fields | ({"ports": self._ports} if ready else {})), flush=True)
        elif ready:
            at = reached_at(self._host, self._ports["FOREBAY_HTTP_PORT"])
            print(f"\nready after {elapsed_s:.1f} s. Try:\n{TRY.format(at=at)}\n", flush=True)
        else:
            words = f"{state.phase}{': ' if state.detail else ''}{state.detail}"
            print(f"[{elapsed_s:6.1f} s] {state.name:<7}{words}", flush=True)


def _port_option(variable: str) -> click.Option:
    flag = "--" + variable.removeprefix("FOREBAY_").replace("_", "-").lower()
    return click.Option(
        [flag, variable],
        envvar=variable,
        default=PORTS[variable],
        show_default=True,
        type=click.IntRange(1, 65535),
        help=f"or {variable}",
    )


def _address(_context: click.Context, _parameter: click.Parameter, said: str) -> str:
    """Return an IP address as it was said."""
    try:
        ipaddress.ip_address(said)
    except ValueError:
        raise click.BadParameter(f"{said!r} is no IP address") from None
    return said


def _build_engine(build_id: str, settings: StackSettings, tell: Teller) -> None:
    """Bring the engine up to date; a current one costs no time.

    The first one is not tried before it is installed: nothing serves that it could harm, and
    Triton, started next, is ready only when it has decoded a token of it.
    """
    replaces = (settings.repository / "tensorrt_llm" / "1" / "engine").exists()
    try:
        built = build(
            build_id,
            repository=settings.repository,
            weights=settings.weights,
            toolbox=Toolbox(environment=settings.environment),
            tried=replaces,
            progress=lambda step: tell(State("engine", "starting", step)),
        )
    except BuildError as error:
        raise SettingsError(str(error)) from error
    except OSError as error:
        raise SettingsError(
            f"the engine could not be written: {error}. Free some space and run it again"
        ) from error
    tell(State("engine", "serving", f"{built.build_id} {built.digest[:12]}"))


async def _serve(settings: StackSettings, tell: Teller) -> None:
    """Serve until SIGINT or SIGTERM; a second one gives up the grace."""
    stack = Stack(settings, tell)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stack.stop)
    await stack.run()


@click.command(params=[_port_option(variable) for variable in PORTS])
@click.option("--home", envvar="FOREBAY_HOME", type=Path, default=CHECKOUT / ".forebay")
@click.option(
    "--policy", envvar="FOREBAY_POLICY", type=Path, default=CHECKOUT / "policies" / "default.yaml"
)
@click.option(
    "--repository", envvar="FOREBAY_REPOSITORY", type=Path, default=CHECKOUT / "model_repository"
)
@click.option(
    "--host",
    envvar="FOREBAY_HOST",
    callback=_address,
    default="127.0.0.1",
    show_default=True,
    help="where both doors listen, such as 0.0.0.0 for all addresses; or FOREBAY_HOST",
)
@click.option("--environment", type=Path, default=CHECKOUT / ".venv-triton")
@click.option("--build", "build_id", default="smollm2-135m-instruct.cpu-x86", show_default=True)
@click.option("--router/--no-router", default=True, help="serve Triton alone, without the router")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line")
def up(
    *,
    home: Path,
    policy: Path,
    repository: Path,
    host: str,
    environment: Path,
    build_id: str,
    router: bool,
    as_json: bool,
    **ports: int,
) -> None:
    """Build the engine, start Triton and the router, keep them serving until Ctrl-C."""
    ports = {variable: ports[variable] for variable in PORTS}
    settings = StackSettings(
        home=home.resolve(),
        environment=environment.absolute(),
        repository=repository.resolve(),
        policy=policy.resolve(),
        ports=ports,
        host=host,
        router=router,
    )
    tell = Teller(as_json=as_json, ports=ports, host=host)
    try:
        if router:
            wiring.read_policy(settings.policy)  # a wrong one is told before the engine is built
        with alone(settings.home):
            require_free(ports, host)
            _build_engine(build_id, settings, tell)
            asyncio.run(_serve(settings, tell))
    except (SettingsError, OSError) as error:
        print(f"forebay up: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    up()
