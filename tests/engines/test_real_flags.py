"""The flags as data against an installed TensorRT-LLM, where there is one."""

import pytest

from enginebuild import flags

tensorrt_llm = pytest.importorskip(
    "tensorrt_llm", reason="tensorrt_llm is not installed: the flags were not compared with it"
)


def test_trtllm_build_has_our_flags_with_our_defaults(monkeypatch):
    from tensorrt_llm.commands import build

    monkeypatch.setattr("sys.argv", ["trtllm-build", "--checkpoint_dir", "x"])
    known = vars(build.parse_arguments())
    ours = flags.options(flags.BUILD)
    assert set(ours) <= set(known), "options the installed trtllm-build does not have"
    for name, option in ours.items():
        if option.default is not None and name != "output_dir":
            assert str(known[name]).lower() in {str(option.default).lower(), "none"}, name
