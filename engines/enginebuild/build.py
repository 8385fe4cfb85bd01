"""The one public function: a build id in, an installed engine out, nothing done twice."""

from collections.abc import Callable
from pathlib import Path

from enginebuild import install, manifest, render
from enginebuild.builders import openvino
from enginebuild.errors import BuildError
from enginebuild.manifest import Built
from enginebuild.spec import SPECS, BuildSpec, load

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
    progress: Callable[[str], None] = lambda _: None,
) -> Built:
    """Return the engine of that build, installed in `repository`; made only if it has changed.

    Everything is staged in a scratch folder and appears by one rename, so a build that fails
    or is killed never touches what serves. Builds of one repository wait for each other.

    Args:
        build_id: The name of a file in `specs`/builds.
        repository: The Triton model repository to install into.
        weights: The weights file, or a folder that holds it; by default the installed package.
        specs: Where models, SKUs and builds are read.
        sources: Where the checked-in Python models are; copied if `repository` is another.
        progress: Told, in a few words, each step that takes time.

    Raises:
        BuildError: if a spec is wrong or the weights are not the model's.
    """
    spec = load(build_id, specs)
    home = repository / CORE / VERSION
    home.mkdir(parents=True, exist_ok=True)
    engine = home / render.ENGINE_DIRECTORY
    with install.alone(home):
        key = _key(spec)
        digest = _unchanged(engine, key)
        fresh = digest is None
        if digest is None:
            digest = _make(spec, engine, weights, key, progress)
        changed = _install_models(sources, repository)
        for model, text in render.configs(spec, digest).items():
            (repository / model / VERSION).mkdir(parents=True, exist_ok=True)
            changed |= install.put_text(repository / model / "config.pbtxt", text)
    return Built(build_id=build_id, engine=engine, digest=digest, fresh=fresh or changed)


def _make(
    spec: BuildSpec,
    engine: Path,
    weights: Path | None,
    key: str,
    progress: Callable[[str], None],
) -> str:
    with install.scratch(engine) as folder:
        openvino.stage(spec, folder, weights, progress)
        about = {
            "build": spec.build_id,
            "builder": spec.build.builder,
            "inputs": key,
            "model": spec.build.model,
            "sku": spec.build.sku,
            "profile": spec.build.profile,
            "weights_sha256": spec.model.source.sha256,
            "limits": spec.build.limits.model_dump(),
            "kv_cache": spec.build.kv_cache.model_dump(),
            "tools": openvino.tools(),
        }
        digest = manifest.write(folder, about)
        progress(f"installing {engine.parent.parent.name} ({digest[:12]})")
        install.swap_in(folder, engine)
    return digest


def _key(spec: BuildSpec) -> str:
    """Return what the engine depends on, as one hash: the spec, the tools, this code."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted((PACKAGE / "tokenizer.py", PACKAGE / "builders" / "openvino.py"))
    )
    tools = manifest.canonical(openvino.tools())
    return manifest.text_sha256(manifest.canonical(spec.model_dump()), tools, code)


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


def _install_models(sources: Path, repository: Path) -> bool:
    """Copy the Python models into another repository; return whether one changed."""
    if sources.resolve() == repository.resolve():
        return False
    changed = False
    for path in sorted(sources.glob(f"*/{VERSION}/*.py")):
        target = repository / path.relative_to(sources)
        changed |= install.put_text(target, path.read_text(encoding="utf-8"))
    return changed
