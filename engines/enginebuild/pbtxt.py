"""Triton's `config.pbtxt` as protobuf messages, made and printed; never text put into text."""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from enginebuild import parameters
from enginebuild.contract import Kind, Tensor
from enginebuild.errors import BuildError


def model(
    name: str,
    max_batch_size: int,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    *,
    backend: str = "python",
) -> Any:
    """Return the config of a model that a backend runs, in one instance."""
    config = pb.ModelConfig(
        name=name,
        backend=backend,
        max_batch_size=max_batch_size,
        input=map(_input, inputs),
        output=map(_output, outputs),
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.Kind.KIND_CPU)],
    )
    if max_batch_size:
        config.dynamic_batching.SetInParent()
    return config


def pipeline(
    name: str, max_batch_size: int, inputs: Iterable[Tensor], outputs: Iterable[Tensor]
) -> Any:
    """Return the config of an ensemble without steps."""
    return pb.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=max_batch_size,
        input=map(_input, inputs),
        output=map(_output, outputs),
    )


def add_step(
    config: Any, step_model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """Add a step of an ensemble: its tensors against the names inside the ensemble."""
    step = config.ensemble_scheduling.step.add(model_name=step_model, model_version=-1)
    step.input_map.update(inputs)
    step.output_map.update(outputs)


def set_parameters(config: Any, values: Mapping[str, str]) -> None:
    """Set the parameters of a model.

    Raises:
        BuildError: if one is no parameter of that model.
    """
    if wrong := parameters.unknown(config.name, frozenset(values)):
        raise BuildError(f"{config.name} has no parameter {', '.join(wrong)}")
    for key, value in values.items():
        config.parameters[key].string_value = value


def printed(config: Any) -> str:
    """Return the text, which parses back."""
    text: str = text_format.MessageToString(config)
    text_format.Parse(text, pb.ModelConfig())
    return text


def _input(tensor: Tensor) -> Any:
    made = pb.ModelInput(
        name=tensor.name,
        data_type=_data_type(tensor),
        dims=tensor.dims,
        optional=tensor.optional,
        allow_ragged_batch=tensor.kind is Kind.RAGGED,
    )
    if tensor.kind is Kind.SCALAR:
        made.reshape.SetInParent()
    return made


def _output(tensor: Tensor) -> Any:
    return pb.ModelOutput(name=tensor.name, data_type=_data_type(tensor), dims=tensor.dims)


def _data_type(tensor: Tensor) -> Any:
    return pb.DataType.Value(f"TYPE_{tensor.data_type}")
