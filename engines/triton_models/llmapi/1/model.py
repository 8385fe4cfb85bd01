"""`tensorrt_llm` by TensorRT-LLM's LLM API: text in, text out, batched inside the LLM.

NVIDIA's model of this kind has no metrics. This one counts the requests it has taken, under the
names its compiled backend uses, so that admission has a figure beside the router's own; the KV
cache is not known to it, and a replica without that figure is admitted by requests alone.
"""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
import yaml
from tensorrt_llm import LLM, SamplingParams

PREFIX = "sampling_param_"
NOT_SAMPLING = {"exclude_input_from_output", "return_perf_metrics"}
"""The answer is the generated text alone, and performance outputs are not sent."""
FAMILY = "nv_trt_llm_request_metrics"


class TritonPythonModel:
    """Triton's entry: made once per instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the LLM of `engine/model.yaml`, and keep its event loop on a thread."""
        engine = Path(args["model_repository"]) / args["model_version"] / "engine"
        settings = yaml.safe_load((engine / "model.yaml").read_text(encoding="utf-8"))
        settings.pop("triton_config")
        self._llm = LLM(**settings)
        ids = json.loads((engine / "engine.json").read_text(encoding="utf-8"))
        self._family = pb_utils.MetricFamily(
            name=FAMILY, description="requests taken", kind=pb_utils.MetricFamily.GAUGE
        )
        self._active = self._gauge(args, "active")
        self._most = self._gauge(args, "max")
        self._most.set(ids["max_batch_size"])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llm", daemon=True)
        self._thread.start()

    def execute(self, requests: list[Any]) -> None:
        """Answer each request on the loop."""
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            sender = request.get_response_sender()
            asyncio.run_coroutine_threadsafe(self._answer(inputs, sender), self._loop)

    def finalize(self) -> None:
        """Stop the loop and the LLM's workers."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._llm.shutdown()

    def _gauge(self, args: dict[str, str], kind: str) -> Any:
        named = {"model": args["model_name"], "version": args["model_version"]}
        return self._family.Metric(labels={**named, "request_type": kind})

    async def _answer(self, inputs: dict[str, Any], sender: Any) -> None:
        self._active.increment(1)
        try:
            await self._generate(inputs, sender)
        except Exception as error:  # noqa: BLE001 - a stream without its end would hang the client
            fault = pb_utils.TritonError(str(error))
            sender.send(pb_utils.InferenceResponse(output_tensors=[], error=fault))
        finally:
            self._active.increment(-1)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    async def _generate(self, inputs: dict[str, Any], sender: Any) -> None:
        streaming = bool(_first(inputs, "streaming", default=False))
        text = _first(inputs, "text_input", default=b"").decode()
        result = self._llm.generate_async(text, sampling(inputs), streaming=streaming)
        sent = 0
        async for partial in result:
            if sender.is_cancelled():
                result.abort()
                return
            output = partial.outputs[0]
            sender.send(_response(output.text[sent:], output.finish_reason, inputs))
            sent = len(output.text)


def sampling(inputs: dict[str, Any]) -> SamplingParams:
    """Return the request's sampling parameters; one that LLM's do not have is an error."""
    said: dict[str, Any] = {}
    for name, array in inputs.items():
        if not name.startswith(PREFIX) or not array.size:
            continue
        key = name.removeprefix(PREFIX)
        if key == "stop":
            said[key] = [word.decode() for word in array.ravel()]
        elif key not in NOT_SAMPLING:
            said[key] = array.ravel()[0].item()
    return SamplingParams(**said)


def _response(text: str, finish_reason: str | None, inputs: dict[str, Any]) -> Any:
    tensors = [pb_utils.Tensor("text_output", np.array([text.encode()], np.object_))]
    if _first(inputs, "return_finish_reason", default=False):
        reason = np.array([(finish_reason or "").encode()], np.object_)
        tensors.append(pb_utils.Tensor("finish_reason", reason))
    return pb_utils.InferenceResponse(output_tensors=tensors)


def _first(inputs: dict[str, Any], name: str, *, default: Any) -> Any:
    return inputs[name].ravel()[0] if name in inputs and inputs[name].size else default
