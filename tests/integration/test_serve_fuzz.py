"""The server against what its own description lets one say, and against what it does not: no 5xx, and only
responses that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving import letters, site

CHECKED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
ASKED = [
    ("POST /v1/chat/completions", POSITIVE, {200, 400}),
    ("POST /v1/chat/completions", NEGATIVE, {400}),
    ("POST /v1/completions", POSITIVE, {200, 400}),
    ("POST /v1/completions", NEGATIVE, {400}),
    ("POST /v1/responses", POSITIVE, {200, 400}),
    ("POST /v1/responses", NEGATIVE, {400}),
    ("POST /v1/messages", POSITIVE, {200, 400}),
    ("POST /v1/messages", NEGATIVE, {400}),
    ("POST /v1/messages/count_tokens", POSITIVE, {200, 400}),
    ("POST /api/chat", POSITIVE, {200, 400}),
    ("POST /api/chat", NEGATIVE, {400}),
    ("POST /api/generate", POSITIVE, {200, 400}),
    ("POST /api/generate", NEGATIVE, {400}),
    ("GET /v1/models", POSITIVE, {200}),
    ("GET /health", POSITIVE, {200}),
]


@pytest.fixture(scope="module")
def operations() -> Iterator[dict[str, Any]]:
    with site(letters(), max_prompt_tokens=500, max_answer_tokens=3, queue_size=100) as server:
        schema = schemathesis.openapi.from_asgi("/openapi.json", server.app)
        found = [result.ok() for result in schema.get_all_operations()]
        yield {operation.label: operation for operation in found}


@pytest.mark.parametrize("examples", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("label", "mode", "expected"), ASKED)
def test_whatever_is_said(
    operations: dict[str, Any], label: str, mode: GenerationMode, expected: set[int], examples: int
) -> None:
    statuses: set[int] = set()

    @given(case=operations[label].as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        assume(len(repr(case.body)) < 1_000_000)  # larger ones are another matter: 413
        if mode is POSITIVE and isinstance(case.body, dict):
            case.body["model"] = "letters"  # else nearly all of them end there
            if isinstance(case.body.get("messages"), list):  # else few end with a user's message
                case.body["messages"].append({"role": "user", "content": "Hi?"})
        statuses.add(case.call_and_validate(checks=CHECKED).status_code)

    ask()
    # a body with a name of its own for the model gets as far as that
    assert expected <= statuses <= expected | {404 if mode is NEGATIVE else 200}
