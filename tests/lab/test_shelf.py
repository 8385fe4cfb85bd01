"""What is kept is kept under all that it depends on."""

from pathlib import Path

import forebay
from forebay.lab.shelf import ADMISSION, code_version


def test_a_version_changes_with_each_source(tmp_path):
    file, folder = tmp_path / "one.py", tmp_path / "more"
    folder.mkdir()
    versions = {code_version()}
    for path in (file, folder / "two.py", folder / "three.py", file):
        path.write_text(f"{len(versions)}")
        versions.add(code_version(file, folder))
    assert len(versions) == 5


def test_admission_is_its_package_and_what_else_it_decides_by():
    root = Path(forebay.__file__).parent
    files = {path for one in ADMISSION for path in (one.glob("*.py") if one.is_dir() else [one])}
    for name in ("policy/admission/controller.py", "policy/health.py", "values.py"):
        assert root / name in files
    assert all(path.is_file() for path in files)
