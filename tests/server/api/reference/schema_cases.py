"""Requests made from the served OpenAPI document by schemathesis, right ones and wrong ones.

Every answer is held against the document: status, media type, headers, body; wrong requests must
be refused, right ones taken, a missing key noticed.
"""

import json
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import BaseSchema, GenerationMode, HookContext
from schemathesis.config import (
    ChecksConfig,
    CoveragePhaseConfig,
    ExamplesPhaseConfig,
    FuzzingPhaseConfig,
    GenerationConfig,
    PhasesConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
    StatefulPhaseConfig,
)
from schemathesis.config._auth import AuthConfig
from schemathesis.config._checks import NegativeDataRejectionConfig
from schemathesis.engine import Status, events, from_schema

from server.embeddings.schemas import MODEL

# operations that would take away the key that asks
KEY_OF_ITS_OWN = ("key_revoke",)
# what makes nearly any request of the right form one that is answered: fields that a model would
# have to make sense of, and those that contradict one another at random
_NOT = dict.fromkeys(("stream_options", "top_logprobs", "tools", "tool_choice", "n"))
MEANINGFUL: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        **_NOT,
        "messages": [{"role": "user", "content": "Where is my parcel?"}],
        "max_tokens": None,
        "max_completion_tokens": 8,
        "response_format": None,
        "store": True,
    },
    "/v1/responses": {
        **dict.fromkeys(("tools", "tool_choice", "text", "previous_response_id", "include")),
        "input": "Where is my parcel?",
        "store": True,
    },
    "/v1/completions": {
        "prompt": "Where is",
        "max_tokens": 8,
        **dict.fromkeys(("n", "best_of", "stream_options")),
    },
    "/v1/embeddings": {"model": MODEL, "input": ["Where is my parcel?", "When do you open?"]},
}
REFUSALS = ("400", "401", "403", "404", "405", "409", "413", "429")
ABOUT_FORM = {"unknown_parameter", "unsupported_parameter", "invalid_type", "invalid_json"}


@dataclass
class Outcome:
    """How many requests were made, and what was wrong with the answers."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Outcome") -> None:
        """Count another run in."""
        self.cases += other.cases
        self.statuses += other.statuses
        self.operations += other.operations
        self.good += other.good
        self.failures = {**other.failures, **self.failures}

    def note(self, recorder: Any) -> None:
        """Count what one scenario did."""
        self.cases += len(recorder.interactions)
        self.operations[recorder.label] += len(recorder.interactions)
        for interaction in recorder.interactions.values():
            if interaction.response is not None:
                status = interaction.response.status_code
                self.statuses[status] += 1
                self.good[recorder.label] += status < 400
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    self._judge(check, recorder.interactions[case_id])

    def _judge(self, check: Any, made: Any) -> None:
        failure = check.failure_info.failure
        refused_for_meaning = check.name == "positive_data_acceptance" and _told_why(made)
        # "null" is read as absent, as in many servers; no schema of a parameter can say so
        absent = check.name == "negative_data_rejection" and "=null" in made.request.uri
        # a job has its report when it has ended, a tenant something to promote when it has trained, and
        # an upload of articles makes some when it is read
        early = re.search(r"/(report|promote|knowledge)\b", made.request.uri)
        later = check.name == "ensure_resource_availability" and early is not None
        if not (refused_for_meaning or absent or later):
            kind = f"{failure.operation}: {check.name}: {failure.title}"
            answer = made.response.content[:500] if made.response else b""
            text = f"{failure.message}\n{check.failure_info.code_sample[:2000]}\n{answer!r}"
            self.failures.setdefault(kind, text)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask with one key.

    ``examples`` bounds the requests of each operation and the chains of requests; ``coverage`` adds
    one request for each thing that can be wrong with each field. Without a seed the requests are
    the same each time. With ``slug`` and ``model`` they are about this tenant and model, which
    exist, instead of ones that were thought up. ``leave_out`` names operations by id. With
    ``meaningful`` there are right requests only, to what generates and to what was generated, and
    most are answered.
    """

    key: str
    examples: int
    seed: int | None = None
    coverage: bool = True
    slug: str | None = None
    model: str | None = None
    leave_out: tuple[str, ...] = ()
    meaningful: bool = False

    def config(self) -> SchemathesisConfig:
        """The same in schemathesis' words."""
        generation = GenerationConfig(
            modes=[GenerationMode.POSITIVE] if self.meaningful else None,
            max_examples=self.examples,
            deterministic=self.seed is None,
            database="none",
            no_shrink=True,
        )
        project = ProjectConfig(
            auth=AuthConfig(openapi={"bearer": {"bearer": self.key}}),
            parameters={"path.slug": self.slug} if self.slug else None,
            generation=generation,
            request_timeout=30,
            checks=ChecksConfig(
                negative_data_rejection=NegativeDataRejectionConfig(expected_statuses=REFUSALS)
            ),
            continue_on_failure=True,
            phases=PhasesConfig(
                examples=ExamplesPhaseConfig(enabled=False),
                coverage=CoveragePhaseConfig(enabled=self.coverage and not self.meaningful),
                fuzzing=FuzzingPhaseConfig(),
                stateful=StatefulPhaseConfig(max_steps=6),
            ),
        )
        return SchemathesisConfig(seed=self.seed, projects=ProjectsConfig(default=project))

    def body(self, body: Any, *, path: str) -> Any:
        """A body that schemathesis made, changed to what was asked for here."""
        if self.model is None or not isinstance(body, dict):
            return body
        said = body.get("model")
        if isinstance(said, str) and 1 <= len(said) <= 256:
            body = {**body, "model": self.model}
        if self.meaningful and path in MEANINGFUL:
            mended = {**body, **MEANINGFUL[path]}
            body = {key: value for key, value in mended.items() if value is not None}
        return body


def run(url: str, plan: Plan) -> Outcome:
    """Make requests of a server that runs."""
    outcome = Outcome()
    schema: BaseSchema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=plan.config())
    if plan.leave_out:
        schema = schema.exclude(operation_id=list(plan.leave_out))
    if plan.meaningful:
        schema = schema.include(path_regex=f"^({'|'.join(MEANINGFUL)})")

    @schema.hook
    def map_body(context: HookContext, body: Any) -> Any:
        operation = context.operation
        return plan.body(body, path=operation.path if operation else "")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Hypothesis, about how it makes its data
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                outcome.note(event.recorder)
                if event.status == Status.ERROR:
                    outcome.failures.setdefault(f"{event.recorder.label}: not run", event.phase)
            elif isinstance(event, events.NonFatalError):
                outcome.failures[f"{event.label}: error"] = str(event.value)
            elif isinstance(event, events.FatalError):
                raise event.exception
    return outcome


def _told_why(made: Any) -> bool:
    """Whether a request of the right form was refused for what it means, and was told so.

    A schema cannot say that a date must lie ahead, that two fields contradict each other, or that
    a job has ended. Such a refusal names the field, or has a code of its own.
    """
    try:
        answer = json.loads(made.response.content)
    except ValueError:
        return False
    error = answer.get("error", answer)
    if re.search(r"Expected `int[^`]*`, got `float`", str(error)):
        return True  # JSON Schema counts 1.0 among the integers
    code = error.get("code")
    return code not in ABOUT_FORM and (bool(error.get("param")) or code != "invalid_value")
