"""Engines as artefacts: specified, built, manifested, installed into a Triton repository.

`build` is the one entry. It never imports `forebay`; the router reads what it installs.
"""

from enginebuild.build import build
from enginebuild.errors import BuildError, SpecError, WeightsError
from enginebuild.manifest import Built
from enginebuild.spec import SPECS

__all__ = ["SPECS", "BuildError", "Built", "SpecError", "WeightsError", "build"]
