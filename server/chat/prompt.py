"""The policy: from what a request asks for to what the engine is asked, the same for every API.

* The adapter's system prompt comes first, as in training, and the caller's after it, in one system
  message. Where the adapter's prompt ends with the caller's text, that text is not repeated. A base
  with neither gets a neutral prompt: chat templates insert one of their own otherwise.
* Control tokens are removed from every text, so that no text can end its own turn.
* Answers are greedy unless the request says otherwise: adapters are evaluated that way, and a small
  model that is sampled at temperature 1 loses the thread. Several answers (``n``) are sampled at
  ``SEVERAL_TEMPERATURE``.
* Answers end after ``DEFAULT_MAX_TOKENS`` unless the request says otherwise.
* Tools are described by the base's chat template where it can, in the system message otherwise.
* Texts (``TextRequest``) are continued as they are, without any system prompt.

What happens to a request that does not fit into the context is in ``truncation.py``.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from connectors.control_tokens import has_control_token, without_control_tokens
from server.adapters.schemas import Resolved
from server.chat.cache_salt import cache_salt, installation_secret
from server.chat.completions import TextRequest
from server.chat.schemas import CHARACTERS_PER_TOKEN, ChatMessage, ChatRequest, ToolCall
from server.chat.tools import as_calls, as_text, tool_fields
from server.engine.tool_format import tool_format

NEUTRAL_SYSTEM_PROMPT = "You are a helpful assistant."
DEFAULT_MAX_TOKENS = 1024
SEVERAL_TEMPERATURE = 0.7
RESERVED_TOKENS = 256  # against token limits, for an answer without a length of its own
AnyRequest = ChatRequest | TextRequest


class PromptPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Writes the engine's requests. Pure: it reads no database, no disk and no clock.

    Args:
        native_tools: whether the base's chat template renders tools itself.
        secret: the installation's, from which each tenant's cache salt is made.

    Example:
        policy = PromptPolicy(native_tools=True, secret=installation_secret(home))
        body = policy.body(request, resolved)  # what the engine's POST takes, before JSON
    """

    native_tools: bool
    secret: bytes

    def body(self, request: AnyRequest, resolved: Resolved) -> dict[str, Any]:
        """The engine's request, always a streamed one; the caller may change it."""
        body: dict[str, Any] = msgspec.to_builtins(request.sampling, str_keys=True)
        if request.sampling.temperature is None:
            body["temperature"] = 0.0 if request.sampling.n == 1 else SEVERAL_TEMPERATURE
        body["cache_salt"] = cache_salt(self.secret, resolved.tenant_id)
        if isinstance(request, TextRequest):
            body["prompt"] = request.prompts[0] if len(request.prompts) == 1 else request.prompts
        else:
            body |= self._conversation(request, resolved)
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        return body

    def _conversation(self, request: ChatRequest, resolved: Resolved) -> dict[str, Any]:
        """The fields of a chat that are not about sampling."""
        if self.native_tools:
            request = msgspec.structs.replace(request, messages=as_calls(request.messages))
        else:
            request = as_text(request)
        fields: dict[str, Any] = {}
        if request.sampling.max_tokens is None:
            fields["max_tokens"] = DEFAULT_MAX_TOKENS
        system = {"role": "system", "content": system_prompt(request.system, resolved)}
        fields["messages"] = [system, *map(_without_control_tokens, request.messages)]
        if request.tools is not None:
            fields |= tool_fields(request.tools)
        return fields


def system_prompt(given: str, resolved: Resolved) -> str:
    """The text of the system message, from the caller's own text and the model's."""
    given = without_control_tokens(given)
    if f"\n\n{resolved.system_prompt}".endswith(f"\n\n{given}"):
        given = ""  # OpenAI's users repeat the system message of their training files
    system = "\n\n".join(part for part in (resolved.system_prompt, given) if part)
    if not system and resolved.adapter is None:
        return NEUTRAL_SYSTEM_PROMPT
    return system


def estimate_prompt_tokens(request: AnyRequest, resolved: Resolved) -> int:
    """About how many tokens the engine will read."""
    return (request.characters + len(resolved.system_prompt)) // CHARACTERS_PER_TOKEN


def estimate_tokens(request: AnyRequest, resolved: Resolved) -> int:
    """About how many tokens a request may use at most, read and generated together."""
    answer = request.sampling.max_tokens or RESERVED_TOKENS
    return estimate_prompt_tokens(request, resolved) + request.choices * answer


class PolicyFiles:
    """Reads what the policy must know of this installation from the disk, once, on first use.

    Args:
        home: the folder of the installation's secret, which is made on first use.
        serving: the folder of the base's tokenizer, whose chat template may render tools;
            None: it does not. It may appear later than this object.
    """

    def __init__(self, home: Path, *, serving: Path | None = None) -> None:
        self._home = home
        self._serving = serving

    def prepare(self) -> None:
        """Make the secret where there is none, so that no request can fail for lack of disk space.

        Raises:
            OSError: it cannot be read or made.
        """
        _ = self._secret

    @cached_property
    def policy(self) -> PromptPolicy:
        """The policy of this installation; raises as ``prepare``."""
        native = self._serving is not None and tool_format(self._serving).native
        return PromptPolicy(native_tools=native, secret=self._secret)

    @cached_property
    def _secret(self) -> bytes:
        return installation_secret(self._home)


def _without_control_tokens(message: ChatMessage) -> ChatMessage:
    """A message that cannot end its own turn and begin another's."""
    if calls := message.tool_calls:
        plain = tuple(map(_call_without_control_tokens, calls))
        message = msgspec.structs.replace(message, tool_calls=plain)
    if not has_control_token(message.content):
        return message
    return msgspec.structs.replace(message, content=without_control_tokens(message.content))


def _call_without_control_tokens(call: ToolCall) -> ToolCall:
    arguments = without_control_tokens(call.function.arguments)
    function = msgspec.structs.replace(call.function, arguments=arguments)
    return msgspec.structs.replace(call, function=function)
