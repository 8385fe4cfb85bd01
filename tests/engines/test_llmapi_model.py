"""The LLM API's Triton model against fakes of Triton and of tensorrt_llm: it has not met either."""

import importlib.util
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

MODEL = Path(__file__).resolve().parents[2] / "engines/triton_models/llmapi/1/model.py"


class Tensor:
    def __init__(self, name, array):
        self._name, self._array = name, array

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


@dataclass
class Response:
    output_tensors: list
    error: str | None = None


class Metric:
    def __init__(self, labels, seen):
        self.kind, self.seen = labels["request_type"], seen

    def set(self, value):
        self.seen.append((self.kind, "set", value))

    def increment(self, value):
        self.seen.append((self.kind, "increment", value))


class Sender:
    def __init__(self, cancelled_after=99):
        self.texts, self.errors, self.done = [], [], threading.Event()
        self.cancelled_after = cancelled_after

    def is_cancelled(self):
        return len(self.texts) >= self.cancelled_after

    def send(self, response=None, flags=None):
        if flags is not None:
            self.done.set()
        elif response.error:
            self.errors.append(response.error)
        else:
            self.texts.append(response.output_tensors[0].as_numpy()[0].decode())


@dataclass
class Request:
    arrays: dict
    sender: Sender

    def inputs(self):
        return [Tensor(name, array) for name, array in self.arrays.items()]

    def get_response_sender(self):
        return self.sender


class Result:
    def __init__(self, texts):
        self.texts, self.aborted = texts, False

    def abort(self):
        self.aborted = True

    async def __aiter__(self):
        for order in range(len(self.texts)):
            text = "".join(self.texts[: order + 1])
            yield SimpleNamespace(outputs=[SimpleNamespace(text=text, finish_reason="stop")])


class LLM:
    def __init__(self, **settings):
        self.settings, self.calls, self.results = settings, [], []

    def generate_async(self, text, sampling, *, streaming):
        if text == "fail":
            raise ValueError("prompt too long")
        self.calls.append((text, sampling, streaming))
        self.results.append(Result(["a", "bc", "d"] if streaming else ["abcd"]))
        return self.results[-1]

    def shutdown(self):
        self.calls.append("shutdown")


@pytest.fixture
def model(tmp_path, monkeypatch):
    seen = []
    triton = ModuleType("triton_python_backend_utils")
    triton.Tensor, triton.TritonError = Tensor, str
    triton.InferenceResponse = Response
    triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

    class Family:
        GAUGE = 1

        def __init__(self, name, description, kind):
            assert name == "nv_trt_llm_request_metrics"

        def Metric(self, labels):  # noqa: N802 - as Triton spells it
            return Metric(labels, seen)

    triton.MetricFamily = Family
    trt = ModuleType("tensorrt_llm")
    trt.LLM, trt.SamplingParams = LLM, dict
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", trt)
    engine = tmp_path / "1" / "engine"
    engine.mkdir(parents=True)
    (engine / "model.yaml").write_text("model: /m\ntriton_config: {decoupled: true}\n")
    (engine / "engine.json").write_text(json.dumps({"max_batch_size": 7}))
    spec = importlib.util.spec_from_file_location("llmapi_model", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    args = {"model_repository": str(tmp_path), "model_version": "1", "model_name": "tensorrt_llm"}
    made.initialize(args)
    made.seen = seen
    yield made
    made.finalize()


def ask(model, sender, text="hello", **arrays):
    sent = {"text_input": np.array([text.encode()], dtype=object), **arrays}
    model.execute([Request(sent, sender)])
    assert sender.done.wait(5)
    return sender


def test_a_stream_sends_what_is_new(model):
    sender = ask(model, Sender(), streaming=np.array([True]))
    assert sender.texts == ["a", "bc", "d"]
    assert model._llm.settings == {"model": "/m"}
    assert ("max", "set", 7) in model.seen
    active = [one for one in model.seen if one[0] == "active"]
    assert active == [("active", "increment", 1), ("active", "increment", -1)]


def test_sampling_is_handed_on_by_name(model):
    ask(
        model,
        Sender(),
        sampling_param_max_tokens=np.array([5], np.int32),
        sampling_param_temperature=np.array([0.5], np.float32),
        sampling_param_stop=np.array([b"x", b"y"], dtype=object),
        sampling_param_return_perf_metrics=np.array([True]),
    )
    text, sampling, streaming = model._llm.calls[0]
    assert (text, streaming) == ("hello", False)
    assert sampling == {"max_tokens": 5, "temperature": 0.5, "stop": ["x", "y"]}


def test_a_refusal_ends_the_stream(model):
    assert ask(model, Sender(), "fail").errors == ["prompt too long"]


def test_a_cancelled_request_is_aborted(model):
    ask(model, Sender(cancelled_after=1), streaming=np.array([True]))
    assert model._llm.results[0].aborted
