"""Schemathesis over the OpenAPI document: whatever a client sends, the answer is one that the document promises.

MEZZOTINT_EXAMPLES raises the number of examples per operation (default 12).
"""

import os

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'mezzotint[serve]'")
schemathesis = pytest.importorskip("schemathesis", reason="needs the extra: pip install 'mezzotint[clients]'")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402

import mezzotint as mz  # noqa: E402
from mezzotint.engine import EngineSettings  # noqa: E402
from mezzotint.server.settings import ServerSettings  # noqa: E402

EXAMPLES = int(os.environ.get("MEZZOTINT_EXAMPLES", "12"))

CHECKS = {
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},  # a deadline that the request itself sets may pass
    "positive_data_acceptance": {"enabled": False},  # no schema says that gen_length is a multiple of block_length, or that a prompt fits
}


@pytest.fixture(scope="module")
def schema():
    """Of a server whose canvases are short, so that what is accepted is answered soon."""
    from test_server import Served

    served = Served(ServerSettings(EngineSettings(length=48, running=4), recipe=mz.Recipe(gen_length=32), grammar_seconds=2))
    config = schemathesis.Config.from_dict({"checks": CHECKS})
    yield schemathesis.openapi.from_url(f"{served.url}/openapi.json", config=config)
    served.end()


OPERATIONS = ["/v1/completions", "/v1/fim/completions", "/v1/chat/completions", "/infill", "/tokenize", "/detokenize", "/v1/models/{name}"]
"""Those that take something."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", OPERATIONS)
def test_every_answer_is_one_the_document_promises(schema, path, mode):
    if "{" in path and mode is GenerationMode.NEGATIVE:
        pytest.skip("any text may be the name of a model")
    operation = schema[path]["GET" if "{" in path else "POST"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 12, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def check(case):
        case.call_and_validate(timeout=60)

    check()


def test_operations_without_a_body_answer_as_promised(schema):
    document = schema.raw_schema["paths"]
    assert set(OPERATIONS) == {path for path, item in document.items() if "post" in item or "{" in path}
    for path, item in document.items():
        if "get" in item and "{" not in path:
            schema[path]["GET"].Case().call_and_validate(timeout=60)
