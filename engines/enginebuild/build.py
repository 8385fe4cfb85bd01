"""The one public function: a build id in, an installed engine out, nothing done twice."""

from collections.abc import Callable, Mapping
from pathlib import Path

from enginebuild import install, manifest, render, smoke
from enginebuild.builders import gpu, openvino
from enginebuild.errors import BuildError
from enginebuild.job import Job, gather
from enginebuild.manifest import Built
from enginebuild.spec import SPECS, BuildSpec, load
from enginebuild.steps import Bench, Step
from enginebuild.toolbox import Toolbox

PACKAGE = Path(__file__).resolve().parent
MODELS = PACKAGE.parents[1] / "model_repository"
CORE = "tensorrt_llm"
VERSION = "1"


def build(
    build_id: str,
    *,
    repository: Path = MODELS,
    weights: Path | None = None,
    specs: Path = SPECS,
    sources: Path = MODELS,
    scratch: Path | None = None,
    toolbox: Toolbox | None = None,
    tried: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Built:
    """Return the engine of that build, installed in `repository`; made only if it has changed.

    Everything is made in a scratch folder and appears by one rename, so a build that fails or
    is killed never touches what serves; called again, it goes on where it was. Builds of one
    repository wait for each other.

    Args:
        build_id: The name of a file in `specs`/builds.
        repository: The Triton model repository to install into.
        weights: The weights: a file or folder; by default the package in Triton's
            environment or this one, or a download.
        specs: Where models, SKUs and builds are read.
        sources: Where the checked-in Python models are; copied if `repository` is another.
        scratch: Where steps work; by default `.forebay/builds` beside the repository.
        toolbox: The programs of a build and the machine's GPU; by default those installed.
        tried: Whether a new engine must decode a few tokens before it is installed.
        progress: Told, in a few words, each step that takes time.

    Raises:
        BuildError: if a spec is wrong, a rule refuses it, or a step fails.
    """
    spec, tools = load(build_id, specs), toolbox or Toolbox()
    if isinstance(spec, BuildSpec):
        given = weights or tools.packaged(spec.model.source.package)
        job = openvino.job(spec, given, sources)
    else:
        _require_own(repository, build_id)
        job = gpu.job(spec, weights, tools, specs, sources)
    trial = smoke.step(spec, tools, sources, specs) if tried else None
    root = scratch or repository.parent / ".forebay" / "builds"
    home = repository / CORE / VERSION
    home.mkdir(parents=True, exist_ok=True)
    bench = Bench(root / build_id, progress)
    with bench.alone(), install.alone(home):
        return _installed(job, trial, bench, repository)


def _require_own(repository: Path, build_id: str) -> None:
    if repository.resolve() == MODELS.resolve():
        raise BuildError(
            f"{build_id} is a build for a GPU, and the repository of this checkout serves "
            "the embedded engine; name another with --repository"
        )


def _installed(job: Job, trial: Step | None, bench: Bench, repository: Path) -> Built:
    engine = repository / CORE / VERSION / render.ENGINE_DIRECTORY
    for step in job.first:
        bench.do(step)
    digest = _unchanged(engine, bench.foreseen(job.then))
    fresh = digest is None
    if digest is None:
        for step in job.then:
            package = bench.do(step)
        if trial is not None:
            bench.do(trial)
        digest = str(manifest.read(package)["digest"])
        with install.scratch(engine) as folder:
            gather(package, folder)
            bench.tell(f"installing {CORE} ({digest[:12]})")
            install.swap_in(folder, engine)
        bench.clear()
    configs = job.configs(manifest.named(manifest.read(engine)))
    changed = _install_models(job.python, repository)
    for model, text in configs.items():
        (repository / model / VERSION).mkdir(parents=True, exist_ok=True)
        changed |= install.put_text(repository / model / "config.pbtxt", text)
    return Built(build_id=job.build_id, engine=engine, digest=digest, fresh=fresh or changed)


def _unchanged(engine: Path, key: str) -> str | None:
    """Return the installed engine's digest if it was made of the same inputs and is whole.

    Sizes are compared here; `manifest.verify` compares bytes.
    """
    try:
        found = manifest.read(engine)
    except BuildError:
        return None
    if found.get("inputs") != key:
        return None
    for name, expected in found["files"].items():
        path = engine / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return None
    return str(found["digest"])


def _install_models(python: Mapping[str, Path], repository: Path) -> bool:
    """Copy the models' Python into another repository; return whether a file changed."""
    changed = False
    for model, source in python.items():
        home = repository / model
        if source.resolve() == home.resolve():
            continue
        for path in sorted((source / VERSION).glob("*.py")):
            text = path.read_text(encoding="utf-8")
            changed |= install.put_text(home / VERSION / path.name, text)
    return changed
