"""The requests' bodies. A field that is not here is refused by name, unless its value is the one that changes nothing."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "best_of": (None, 1),
    "echo": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "parallel_tool_calls": (None, True, False),
    "store": (None, False),
    "metadata": (None, {}),
    "service_tier": (None, "auto", "default"),
    "modalities": (None, ["text"]),
    "reasoning_effort": (None, "none"),
}
"""OpenAI's fields that this server does not implement -> the values under which they mean nothing."""

NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "refusal": (None,),
    "tool_calls": (None, []),
    "function_call": (None,),
    "audio": (None,),
    "annotations": (None, []),
    "name": (None,),
}
"""The same inside a message: clients send an answer back as they hold it, with every field of their own."""


class Body(BaseModel):
    """Lists end at their first fault, and of unknown fields only the first is told: a body may hold a hundred thousand."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = NEUTRAL

    @model_validator(mode="before")
    @classmethod
    def without_neutral(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        accepted = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = next((n for n, v in values.items() if n not in accepted and not means_nothing(v, cls.neutral.get(n, ()))), None)
        return {n: v for n, v in values.items() if n in accepted or n == unknown}


def means_nothing(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether a value of OpenAI's field, unknown here, is one that changes nothing."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return any(value == each and (number or type(value) is type(each)) for each in neutral)


Whole = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63 - 2**16)]
Text = Annotated[str, Field(max_length=2**20)]
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=2**17, fail_fast=True)]
Short = Annotated[str, Field(max_length=200)]


class Diffusion(Body):
    """How the canvas is decoded: a named recipe, and fields of it that are to differ (strategies as text, e.g. "threshold:tau=0.9").

    gap: masks between prompt and suffix, or "auto"; ends: the text ends after the suffix; watch: also send every step (accepted tokens, drafts, block);
    seconds: give up after so long.
    """

    recipe: Short | None = None
    gen_length: Whole | None = None
    block_length: Whole | None = None
    steps: Whole | None = None
    commit: Short | None = None
    suffix: Short | None = None
    cache: Short | None = None
    attention: Short | None = None
    sampling: Short | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    confidence: Short | None = None
    cfg_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    early_stop: Short | None = None
    end_tokens: Short | None = None
    reuse: bool | None = None
    gap: Whole | Literal["auto"] | None = None
    ends: bool = True
    watch: bool = False
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None

    def changes(self) -> dict[str, Any]:
        """The recipe's fields that were given. A null block_length is a value; any other null is as good as absent."""
        own = ("recipe", "gap", "ends", "watch", "seconds")
        return {n: v for n in self.model_fields_set if n not in own and ((v := getattr(self, n)) is not None or n == "block_length")}


class StreamOptions(Body):
    include_usage: bool = False


class Common(Body):
    """What every kind of generation takes."""

    model: Short | None = None
    seed: Seed | None = None
    stream: bool | None = None
    diffusion: Diffusion = Field(default_factory=Diffusion)
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    user: Short | None = None


class JsonSchema(Body):
    name: Short | None = None
    description: Text | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextFormat(Body):
    type: Literal["text"]


class JsonFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


class ChoiceFormat(Body):
    type: Literal["choice"]
    choices: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=1000, fail_fast=True)]


class RegexFormat(Body):
    type: Literal["regex"]
    regex: Annotated[str, Field(min_length=1, max_length=4096)]


Format = Annotated[TextFormat | JsonFormat | ChoiceFormat | RegexFormat, Field(discriminator="type")]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Stops = Stop | Annotated[list[Stop], Field(fail_fast=True)]


class Answering(Common):
    """What completions and chats share."""

    n: Annotated[int, Field(ge=1, le=1024)] | None = None
    stop: Stops | None = None
    max_tokens: Whole | None = None
    stream_options: StreamOptions | None = None
    response_format: Format | None = None


class CompletionBody(Answering):
    prompt: Text | Annotated[list[Text], Field(min_length=1, fail_fast=True)] | Ids | Annotated[list[Ids], Field(min_length=1, fail_fast=True)]
    suffix: Text | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class FimBody(CompletionBody):
    """Fill-in-the-middle as Mistral's API has it and editors speak it: answers have the form of a chat's."""

    prompt: Text
    suffix: Text | None = ""
    random_seed: Seed | None = None
    logprobs: None = None


class Part(Body):
    type: Literal["text"]
    text: Text


class Message(Body):
    neutral = NEUTRAL_IN_MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=1000, fail_fast=True)]


class ChatBody(Answering):
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000, fail_fast=True)]
    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class InfillBody(Common):
    """A text with gaps written [[8]], 8 being the number of masks."""

    text: Text


class TokenizeBody(Body):
    model: Short | None = None
    prompt: Text
    add_special_tokens: bool = True


class DetokenizeBody(Body):
    model: Short | None = None
    tokens: Ids
