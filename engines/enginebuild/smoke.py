"""The last step before an engine takes its place: it is loaded, and decodes a few tokens.

It runs on the package, in a process of its own with a limit of time, so an engine that does not
generate is never installed. Nothing here imports what it tries: the embedded engine runs in
Triton's environment, the others by the container's own Python.
"""

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

from enginebuild import argv, checkpoint, manifest, packing
from enginebuild.errors import BuildError
from enginebuild.gpu_spec import GpuSpec
from enginebuild.job import PACKAGE
from enginebuild.planned import Planned, planned
from enginebuild.spec import BuildSpec
from enginebuild.steps import Site, Step
from enginebuild.toolbox import Toolbox

SMOKE = "smoke"
SCRIPTS = Path(__file__).resolve().parents[1] / "smokes"
PROMPT = "hello there"
TOKENS = 8
EMBEDDED_S = 120.0
GPU_S = 1800.0
"""A large engine is read from a disk that may be slow; from memory."""

Trial = Callable[[Site, Path, list[int]], list[int]]
"""Given the site, the package and the prompt's ids, returns the ids that were decoded."""


def step(spec: BuildSpec | GpuSpec, toolbox: Toolbox, sources: Path, specs: Path) -> Step:
    """Return the step that tries what `package` made.

    Args:
        spec: The build.
        toolbox: Whose programs run it.
        sources: Where the checked-in Python models are.
        specs: Where models and SKUs are read.
    """
    if isinstance(spec, BuildSpec):
        script, model = SCRIPTS / "embedded.py", sources / "tensorrt_llm" / "1"
        python = toolbox.environment / "bin" / "python"
        trial = partial(_embedded, (str(python), "-I", str(script)), model)
        return _step(spec, "OpenVINO GenAI", [script, model / "pipeline.py"], trial)
    build = planned(spec, specs)
    if build.plan.output == "llmapi":
        script = SCRIPTS / "llmapi.py"
        trial = partial(_llmapi, (toolbox.python, str(script)))
        return _step(spec, toolbox.called, [script], trial)
    return _step(spec, toolbox.called, [], partial(_engine, build, toolbox))


def _step(spec: BuildSpec | GpuSpec, called: str, code: Sequence[Path], trial: Trial) -> Step:
    vocabulary = spec.model.architecture.vocab_size

    def make(site: Site) -> None:
        package = site.made[PACKAGE]
        try:
            tokenizer = Tokenizer.from_file(str(package / checkpoint.TOKENIZER))
            prompt = tokenizer.encode(PROMPT, add_special_tokens=False).ids
            ids = trial(site, package, prompt)
            _require(ids, vocabulary)
        except (BuildError, OSError, ValueError) as error:
            raise BuildError(
                f"{spec.build_id} was made and did not pass its smoke, so it was not installed "
                f"and what serves was left alone: {error}\nThe engine is kept: mend that and run "
                "this again, or install it untried with --no-smoke"
            ) from error
        site.tell(f"smoke: {len(ids)} tokens by {called}: {tokenizer.decode(ids)!r}")

    texts = [path.read_text(encoding="utf-8") for path in (Path(__file__), *code)]
    return Step(SMOKE, {"code": manifest.text_sha256(*texts), "called": called}, make)


def _require(ids: Sequence[int], vocabulary: int) -> None:
    if not ids or not all(0 <= one < vocabulary for one in ids):
        raise BuildError(f"it decoded {list(ids)}, and tokens are 0 to {vocabulary - 1}")


def _embedded(
    command: Sequence[str], model: Path, site: Site, package: Path, prompt: list[int]
) -> list[int]:
    if not Path(command[0]).is_file():
        raise BuildError(f"{command[0]}, which runs the embedded engine, is missing: make venv")
    result = site.folder / "decoded.json"
    words = [*command, str(package), str(model), str(result), str(TOKENS)]
    site.run([*words, *map(str, prompt)], EMBEDDED_S)
    return _ids(result)


def _llmapi(command: Sequence[str], site: Site, package: Path, prompt: list[int]) -> list[int]:
    result = site.folder / "decoded.json"
    words = [*command, str(package), str(result), str(TOKENS)]
    site.run([*words, *map(str, prompt)], GPU_S)
    return _ids(result)


def _engine(
    build: Planned, toolbox: Toolbox, site: Site, package: Path, prompt: list[int]
) -> list[int]:
    """Run TensorRT-LLM's run.py, which writes prompt and answer as one row of ids."""
    result = site.folder / "decoded.csv"
    words = argv.run(package, packing.source(site), result, PROMPT, TOKENS)
    site.run([*toolbox.run(build.gpus), *words], GPU_S)
    with result.open(encoding="utf-8", newline="") as stream:
        row = [int(word) for word in next(csv.reader(stream), [])]
    return row[len(prompt) :]


def _ids(result: Path) -> list[int]:
    found: list[int] = json.loads(result.read_text(encoding="utf-8"))["ids"]
    return found
