"""What editors' completion plug-ins send, kept as they send it, and read as they read it (docs/editors.md)."""

import json
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'mezzotint[serve]'")
httpx = pytest.importorskip("httpx", reason="talks to the server with httpx: pip install httpx")
pytest.importorskip("openai", reason="shares the server's fixtures: pip install openai")

from test_server import served  # noqa: E402, F401

EDITORS = sorted((Path(__file__).parent / "editors").glob("*.json"))


def read(event, path):
    """What stands at a path like choices.0.text; "" where the event has nothing there."""
    for part in path.split("."):
        event = event[int(part)] if part.isdigit() else event.get(part, "")
    return event


@pytest.mark.parametrize("file", EDITORS, ids=lambda file: file.stem)
def test_a_plugins_request_is_answered_as_it_reads(served, file):  # noqa: F811
    recorded = json.loads(file.read_text(encoding="utf-8"))
    with httpx.stream("POST", served.url + recorded["path"], json=recorded["body"], headers=recorded["headers"], timeout=60) as found:
        lines = [line for line in found.iter_lines() if line]
    assert found.status_code == 200, lines
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    text = "".join(read(json.loads(line.removeprefix("data: ")), recorded["reads"]) for line in lines[:-1])
    body = {name: value for name, value in recorded["body"].items() if name in ("model", "max_tokens", "prompt", "suffix", "top_p", "temperature", "stop")}
    plain = httpx.post(served.url + "/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
    assert text.strip()
    if recorded["body"].get("temperature", 0) == 0:
        assert text == plain


def test_mistrals_form_holds_the_same_fill(served):  # noqa: F811
    """Only the form differs from /v1/completions, and the seed has Mistral's name."""
    body = {"prompt": "def pair(a, b):\n    return ", "suffix": ".count(b)\n", "max_tokens": 4}
    fill = httpx.post(served.url + "/v1/fim/completions", json=body | {"random_seed": 1}, timeout=60).json()
    plain = httpx.post(served.url + "/v1/completions", json=body | {"seed": 1}, timeout=60).json()
    assert fill["object"] == "chat.completion"
    assert fill["diffusion"][0]["seed"] == 1
    assert fill["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    assert fill["usage"] == plain["usage"]
    refused = httpx.post(served.url + "/v1/fim/completions", json=body | {"seed": 1, "random_seed": 2}, timeout=60)
    assert refused.json()["error"]["param"] == "random_seed"
