"""Keeps programs serving. `Supervisor` runs anything that is a `Program`."""

from forebay.edges.processes.program import Phase, Program, Start, State
from forebay.edges.processes.supervisor import Supervisor

__all__ = ["Phase", "Program", "Start", "State", "Supervisor"]
