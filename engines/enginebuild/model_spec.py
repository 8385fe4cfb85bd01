"""A model as data: where its weights come from, and the shape of its network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from enginebuild.strict import Positive, PositiveNumber, Sha256, Strict


class GgufSource(Strict):
    """Weights inside an installed Python package, pinned by the digest of their bytes."""

    kind: Literal["gguf"]
    package: str
    version: str
    file: str
    bytes: Positive
    sha256: Sha256


class HuggingFaceSource(Strict):
    """A checkpoint in a Hugging Face repository, or a local copy of it."""

    kind: Literal["huggingface"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str | None = None


Source = Annotated[GgufSource | HuggingFaceSource, Field(discriminator="kind")]


class RopeScaling(Strict):
    """How rotary positions are stretched beyond the context of pre-training, in tokens."""

    kind: Literal["llama3", "yarn"]
    factor: PositiveNumber
    original_context: Positive


class Moe(Strict):
    """Experts in place of one feed-forward block. `intermediate_size` is one expert's."""

    experts: Positive
    active_experts: Positive
    intermediate_size: Positive

    @model_validator(mode="after")
    def _no_more_active_than_there_are(self) -> Self:
        if self.active_experts > self.experts:
            msg = f"{self.active_experts} active experts of {self.experts}"
            raise ValueError(msg)
        return self


class SlidingWindow(Strict):
    """Layers that attend to the last `tokens` only; the others see the whole sequence."""

    tokens: Positive
    layers: Positive


class Architecture(Strict):
    """The shape of the network. Sizes in elements, lengths in tokens."""

    family: str
    layers: Positive
    hidden_size: Positive
    intermediate_size: Positive
    attention_heads: Positive
    kv_heads: Positive
    head_size: Positive
    vocab_size: Positive
    context_length: Positive
    rope_theta: PositiveNumber
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = False
    moe: Moe | None = None
    sliding_window: SlidingWindow | None = None

    @property
    def attention_parameters(self) -> int:
        """Elements of the Q, K, V and output projections of one layer."""
        heads = 2 * self.attention_heads + 2 * self.kv_heads
        return self.hidden_size * heads * self.head_size

    @property
    def mlp_parameters(self) -> int:
        """Elements of one layer's feed-forward weights; all experts of it, where there are any."""
        if self.moe is None:
            return 3 * self.hidden_size * self.intermediate_size
        expert = 3 * self.hidden_size * self.moe.intermediate_size
        return self.moe.experts * (expert + self.hidden_size)

    @property
    def embedding_parameters(self) -> int:
        """Elements of the input embedding and the output head; one matrix if they are tied."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """Elements of all weight matrices."""
        return (
            self.layers * (self.attention_parameters + self.mlp_parameters)
            + self.embedding_parameters
        )


class SpecialTokens(Strict):
    """Token ids the engine must know without a tokenizer."""

    bos_id: Annotated[int, Field(ge=0)]
    end_id: Annotated[int, Field(ge=0)]
    pad_id: Annotated[int, Field(ge=0)]


class Model(Strict):
    """A network: where its weights come from, and what it looks like.

    `engine_flow` is false where TensorRT-LLM runs the model in PyTorch only, and
    `published_precision` names the precision its weights are published in.
    """

    name: str
    license: str
    source: Source
    architecture: Architecture
    tokens: SpecialTokens
    engine_flow: bool = True
    published_precision: Literal["bf16", "mxfp4"] = "bf16"


class GgufModel(Model):
    """A model whose weights are a package's GGUF file: what the OpenVINO builder takes."""

    source: GgufSource
