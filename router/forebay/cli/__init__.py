"""The `forebay` command: thin; each subcommand parses arguments and calls one thing."""

from __future__ import annotations

import importlib

import click

_COMMANDS = {
    "ask": "forebay.cli.ask",
    "engines": "forebay.cli.engines",
    "explain": "forebay.cli.explain",
    "policy": "forebay.cli.policy",
    "serve": "forebay.cli.serve",
    "simulate": "forebay.cli.simulate",
    "top": "forebay.cli.top",
    "triton": "forebay.cli.engines_start",
    "up": "forebay.cli.up",
}


class _Commands(click.Group):
    """Imports a subcommand when it is used: `forebay ask` need not load what `up` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        found = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        assert isinstance(found, click.Command)
        return found


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="forebay")
def main() -> None:
    """Serve open models on your own GPUs; pay clouds only for what your GPUs should not do."""
