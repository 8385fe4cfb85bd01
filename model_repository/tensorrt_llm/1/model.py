"""`tensorrt_llm` on a CPU: TensorRT-LLM's Triton model, over OpenVINO GenAI.

Decoupled: `execute` reads the tensors, hands requests to the batcher and returns; responses
come from the batcher's thread, one for each token of a streaming request. Each request of a
batch is answered on its own. An absent `end_id` means the model's own; -1 means none.
"""

import json
import time
from pathlib import Path
from typing import Any

import parent
import triton_python_backend_utils as pb_utils
from batcher import Batcher, Job, Refused, Stopping
from generation import Stop
from guide_check import GuideChecker, Verdict
from inputs import InvalidRequestError, parse
from metrics import Gauges
from pipeline import Pipeline, read_engine
from replies import Fault, Reply, Times

CLOSE_S = 5.0


class TritonPythonModel:
    """Triton's entry: made once per instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine named by `gpt_model_path`, relative to this version's directory."""
        parent.follow()
        config = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in config["parameters"].items()}
        home = Path(args["model_repository"]) / args["model_version"]
        engine = read_engine(home / said["gpt_model_path"])
        self._limits = engine.limits
        self._prompt_in_output = said["exclude_input_in_output"] != "true"
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self._gauges = Gauges(pb_utils, labels)
        self._guides = GuideChecker(engine.folder / engine.tokenizer, engine.limits.end_id)
        self._batcher = Batcher(
            lambda: Pipeline(engine),
            engine.limits,
            self._gauges,
            report=pb_utils.Logger.log_error,
            die=parent.end,
            cancellation_period_s=float(said["cancellation_check_period_ms"]) / 1000,
        )

    def execute(self, requests: list[Any]) -> None:
        """Take requests in. What is wrong with one of them concerns no other."""
        arrival_ns = time.monotonic_ns()
        for request in requests:
            self._take(request, Reply(pb_utils, request), Times(arrival_ns))

    def finalize(self) -> None:
        """Tell whoever is left, and end the thread and the checking process."""
        self._guides.close()
        self._batcher.close(CLOSE_S)
        self._gauges.close()

    def _take(self, request: Any, reply: Reply, times: Times) -> None:
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        try:
            asked = parse(tensors, self._limits, prompt_in_output=self._prompt_in_output)
        except InvalidRequestError as error:
            self._batcher.submit(Refused(reply, Fault.INVALID, str(error)))
            return
        if isinstance(asked, Stop):
            self._batcher.submit(Stopping(request.request_id(), reply))
            return
        job = Job(request.request_id(), asked, reply, times)
        if asked.guide is None:
            self._batcher.submit(job)
        else:
            self._guides.check(
                asked.guide, asked.end_id, lambda verdict: self._judged(job, verdict)
            )

    def _judged(self, job: Job, verdict: Verdict) -> None:
        if verdict.why:
            fault = Fault.UNAVAILABLE if verdict.ours else Fault.INVALID
            self._batcher.submit(Refused(job.reply, fault, verdict.why))
        else:
            job.guide = verdict.guide
            self._batcher.submit(job)
