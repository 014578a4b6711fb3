"""The server over real HTTP, used by the real `openai` client and by clients that misbehave."""

import asyncio
import json
import socket
import threading
import time

import pytest

import mezzotint as mz

pytest.importorskip("fastapi", reason="needs the extra: pip install 'mezzotint[serve]'")
pytest.importorskip("prometheus_client", reason="needs the extra: pip install 'mezzotint[serve]'")
httpx = pytest.importorskip("httpx", reason="talks to the server with httpx: pip install httpx")
openai = pytest.importorskip("openai", reason="uses the real client: pip install openai")

from pydantic import ValidationError  # noqa: E402

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra: pip install 'mezzotint[serve]'")

from mezzotint.engine import Engine, EngineSettings  # noqa: E402
from mezzotint.server.answer import Answer  # noqa: E402
from mezzotint.server.app import create_app  # noqa: E402
from mezzotint.server.bodies import ChatBody, CompletionBody, DetokenizeBody  # noqa: E402
from mezzotint.server.listening import Server, listening_config  # noqa: E402
from mezzotint.server.settings import ServerSettings  # noqa: E402

SHORT = {"gen_length": 32, "block_length": 16, "recipe": "threshold"}
QUESTION = [{"role": "user", "content": "Copy these words: amber coral lantern"}]


class Served:
    """A server in a thread, on a free port."""

    def __init__(self, settings):
        self.app = create_app(settings)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket_port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.socket_port}"
        self.server = Server(listening_config(self.app, settings, log_level="error"), lambda: None)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        until = time.monotonic() + 60
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.05)
        assert self.server.started

    @property
    def engine(self) -> Engine:
        return self.app.state.service.engine

    def end(self):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served():
    found = Served(ServerSettings(EngineSettings(running=8)))
    yield found
    found.end()


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def post(served, path, body, **rest):
    return httpx.post(served.url + path, json=body, timeout=60, **rest)


def idle(served):
    until = time.monotonic() + 20
    while (served.engine.running or served.engine.waiting) and time.monotonic() < until:
        time.sleep(0.05)
    return not served.engine.running and not served.engine.waiting


def test_chat_equals_generate(served, client):
    found = client.chat.completions.create(model="mezzotint", messages=QUESTION, seed=3, extra_body={"diffusion": SHORT})
    recipe = mz.named("threshold").with_(gen_length=32, block_length=16)
    expected = mz.generate(served.engine.model, served.engine.tokenizer, QUESTION, recipe, seed=3)
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].finish_reason == expected.finish_reason
    assert found.usage.completion_tokens == len(expected.tokens)
    assert found.diffusion[0]["forwards"] == expected.forwards
    assert mz.Recipe.from_dict(found.diffusion[0]["recipe"]) == recipe


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_a_cut_answer_says_so(served, client, most):
    """One step may decide both the last token that is wanted and a stop id behind it."""
    wanted = {"diffusion": {"recipe": "threshold"}}
    found = client.chat.completions.create(model="mezzotint", messages=QUESTION, seed=0, max_tokens=most, extra_body=wanted)
    recipe = mz.named("threshold").with_(max_tokens=most)
    expected = mz.generate(served.engine.model, served.engine.tokenizer, QUESTION, recipe, seed=0)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == (expected.text, expected.finish_reason)


def test_an_answer_can_be_sent_back_as_it_came(served, client):
    request = {"model": "mezzotint", "max_tokens": 4, "extra_body": {"diffusion": SHORT}}
    messages = [*QUESTION]
    messages.append(client.chat.completions.create(messages=messages, **request).choices[0].message)
    messages.append({"role": "user", "content": "And again"})
    assert client.chat.completions.create(messages=messages, **request).choices[0].message.role == "assistant"
    nothing = dict.fromkeys(("refusal", "tool_calls", "function_call", "audio", "annotations", "name"))
    for empty in (nothing, {"annotations": [], "tool_calls": []}):
        turns = [*QUESTION, {"role": "assistant", "content": "amber"} | empty, {"role": "user", "content": "And again"}]
        found = post(served, "/v1/chat/completions", {"messages": turns, "max_tokens": 1})
        assert found.status_code == 200, found.text
    for name, value in {"refusal": "No", "name": "me", "tool_calls": [{"id": "x"}], "audio": {"id": "x"}}.items():
        found = post(served, "/v1/chat/completions", {"messages": [QUESTION[0] | {name: value}], "max_tokens": 1})
        assert (found.status_code, found.json()["error"]["param"]) == (400, f"messages.0.{name}"), found.text


WRONG = {
    "prompts": (CompletionBody, {"prompt": [{}] * 100_000}),
    "ids": (CompletionBody, {"prompt": [1] * 1000 + ["a"] * 100_000}),
    "lists": (CompletionBody, {"prompt": [[{}] * 1000] * 100}),
    "stops": (CompletionBody, {"prompt": "a", "stop": [1] * 100_000}),
    "messages": (ChatBody, {"messages": [{"role": 1, "content": [{}] * 1000}] * 1000}),
    "choices": (ChatBody, {"messages": QUESTION, "response_format": {"type": "choice", "choices": [1] * 100_000}}),
    "tokens": (DetokenizeBody, {"tokens": ["a"] * 100_000}),
    "fields": (ChatBody, {"messages": QUESTION} | {f"x{i}": i for i in range(100_000)}),
    "inner fields": (ChatBody, {"messages": [QUESTION[0] | {f"x{i}": i for i in range(100_000)}]}),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_body_full_of_faults_is_refused_at_the_first(case):
    """What is wrong a hundred thousand times is told once: making as many errors would hold up everybody."""
    kind, body = WRONG[case]
    with pytest.raises(ValidationError) as refused:
        kind.model_validate(body)
    assert refused.value.error_count() <= 10


def test_a_long_name_is_not_sent_back(served):
    found = post(served, "/v1/chat/completions", {"messages": QUESTION, "x" * 500_000: 1})
    assert found.status_code == 400
    assert len(found.content) < 2000


@pytest.mark.parametrize("settings", [{}, {"stop": " coral"}, {"max_tokens": 3}, {"stop": ["zzz", " lantern"], "n": 2, "temperature": 0.5}], ids=str)
def test_a_stream_joins_to_the_whole_answer(client, settings):
    request = {"model": "mezzotint", "messages": QUESTION, "seed": 1, "extra_body": {"diffusion": SHORT}} | settings
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [c.choices[0] for c in chunks if c.choices and c.choices[0].index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        assert all(stop not in choice.message.content for stop in ([settings["stop"]] if isinstance(settings.get("stop"), str) else settings.get("stop", ())))
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens <= settings.get("max_tokens", 32) * len(whole.choices)


def test_completions_continue_and_fill(served, client):
    text = 'def add(a, b):\n    """Return the sum of a and b."""\n    return '
    found = client.completions.create(model="mezzotint", prompt=text, suffix="\n", logprobs=2, extra_body={"diffusion": {"gap": 3}})
    filled = mz.infill(served.engine.model, served.engine.tokenizer, f"{text}[[3]]\n")
    assert found.choices[0].text == filled.fills[0]
    assert found.choices[0].finish_reason == "stop"
    logprobs = found.choices[0].logprobs
    assert "".join(logprobs.tokens) == found.choices[0].text
    assert all(p <= 0 for p in logprobs.token_logprobs)
    assert [len(top) for top in logprobs.top_logprobs] == [2, 2, 2]
    assert client.completions.create(model="mezzotint", prompt=text, suffix="\n", max_tokens=12, extra_body={"diffusion": {"gap": "auto"}}).choices[0].text
    ids = served.engine.tokenizer("Copy these", add_special_tokens=False)["input_ids"]
    several = client.completions.create(model="mezzotint", prompt=[ids, ids[:1]], n=2, max_tokens=2, temperature=1.0, seed=5)
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    assert several.usage.prompt_tokens == len(ids) + 1


def test_infill_of_several_gaps(served):
    text = "def add(a, b):\n    return [[3]]\n\n\ndef twice(x):\n    return [[3]]\n"
    found = post(served, "/infill", {"text": text}).json()
    expected = mz.infill(served.engine.model, served.engine.tokenizer, text)
    assert (found["text"], tuple(found["fills"])) == (expected.text, expected.fills)
    text = "Copy these words: amber coral\n[[24]]"
    open_end = post(served, "/infill", {"text": text, "diffusion": {"ends": False}}).json()
    assert open_end["fills"] == list(mz.infill(served.engine.model, served.engine.tokenizer, text, ends=False).fills)
    refused = post(served, "/infill", {"text": text, "diffusion": {"early_stop": "step"}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "diffusion.early_stop"


def test_chat_logprobs(client):
    found = client.chat.completions.create(model="mezzotint", messages=QUESTION, logprobs=True, top_logprobs=3, extra_body={"diffusion": SHORT})
    content = found.choices[0].logprobs.content
    assert "".join(c.token for c in content) == found.choices[0].message.content
    assert all(len(c.top_logprobs) == 3 and c.logprob <= 0 and bytes(c.bytes).decode() == c.token for c in content)


def test_watching_shows_steps_and_the_text_stays(client):
    request = {"model": "mezzotint", "messages": QUESTION, "extra_body": {"diffusion": SHORT | {"watch": True, "commit": "quota", "suffix": "dpad:window=8"}}}
    chunks = list(client.chat.completions.create(**request, stream=True))
    steps = [c.diffusion for c in chunks if not c.choices]
    accepted = {a["position"]: a["text"] for s in steps for a in s["accepted"] if not a["end"]}
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text
    assert "".join(accepted[p] for p in range(len(accepted)) if p in accepted).startswith(text)
    assert any(s["drafts"] for s in steps)
    assert all(set(s["unseen"]) <= set(range(s["block"][1], s["length"])) for s in steps)
    assert steps[-1]["forwards"] == sum(s["computed"] > 0 for s in steps)


REFUSED = [
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"nonsense": 1}, "nonsense"),
    ({"temperature": -1}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"n": 99}, "n"),
    ({"stop": ["a"] * 17}, "stop"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ({"diffusion": {"recipe": "fastest"}}, "diffusion.recipe"),
    ({"diffusion": {"gen_length": 100}}, "diffusion.gen_length"),
    ({"diffusion": {"steps": 10**6}}, "diffusion.steps"),
    ({"diffusion": {"commit": "best"}}, "diffusion.commit"),
    ({"diffusion": {"speed": 3}}, "diffusion.speed"),
    ({"diffusion": {"watch": True}}, "diffusion.watch"),
    ({"diffusion": {"ends": False}}, "diffusion.ends"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"diffusion": {"attention": "sparsed:impl=flex"}}, "diffusion.attention"),
    ({"diffusion": {"attention": "sparsed:impl=reference"}}, "diffusion.attention"),
    ({"diffusion": {"suffix": "dpad:window=2000000000"}}, "diffusion.suffix"),
    ({"stop": 5}, "stop"),
    ({"diffusion": {"gen_length": 999_936}}, "diffusion.gen_length"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
]


@pytest.mark.parametrize(("change", "named"), REFUSED, ids=[str(c)[:50] for c, _ in REFUSED])
def test_what_is_not_supported_is_refused_by_name(served, change, named):
    found = post(served, "/v1/chat/completions", {"model": "mezzotint", "messages": QUESTION} | change)
    error = found.json()["error"]
    assert found.status_code == 400, found.text
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(named), error
    assert len(error["message"].splitlines()) == 1


def test_neutral_values_of_unsupported_fields_pass(served):
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tools": [], "user": "me", "response_format": {"type": "text"}}
    found = post(served, "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1} | neutral)
    assert found.status_code == 200, found.text


def test_other_errors_of_the_client(client):
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.chat.completions.create(model="gpt-5", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match=r"the limit is 4096"):
        client.completions.create(model="mezzotint", prompt="amber " * 6000)
    with pytest.raises(openai.BadRequestError, match="prompt is empty"):
        client.completions.create(model="mezzotint", prompt=" ")
    with pytest.raises(openai.BadRequestError, match="needs a suffix"):
        client.completions.create(model="mezzotint", prompt="a", extra_body={"diffusion": {"gap": 3}})
    with pytest.raises(openai.APIStatusError, match=r"after 0\.05 s") as late:
        client.completions.create(model="mezzotint", prompt="a", extra_body={"diffusion": {"seconds": 0.05, "gen_length": 512}})
    assert late.value.status_code == 504


def test_bad_bodies(served):
    for body, status in ((b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"[" * 50_000, 400), (b'{"messages": "' + b"a" * 2**21 + b'"}', 413), (b"", 400)):
        found = httpx.post(served.url + "/v1/chat/completions", content=body, headers={"content-type": "application/json"}, timeout=30)
        assert (found.status_code, "error" in found.json()) == (status, True), (body[:20], found.text)
    lone = httpx.post(served.url + "/v1/completions", content=b'{"prompt": "\\ud800"}', headers={"content-type": "application/json"}, timeout=30)
    assert lone.status_code == 400
    assert httpx.get(served.url + "/nowhere").json()["error"]["type"] == "not_found_error"
    assert httpx.get(served.url + "/v1/completions").status_code == 405


def test_a_client_that_leaves_frees_its_place(served):
    long = {"messages": QUESTION, "diffusion": {"gen_length": 2048, "early_stop": "off"}}
    with httpx.stream("POST", served.url + "/v1/chat/completions", json=long | {"stream": True}, timeout=30) as found:
        next(found.iter_lines())
        assert len(served.engine.running) == 1
    assert idle(served)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(served.url + "/v1/chat/completions", json=long, timeout=0.5)
    assert idle(served)


def test_models_tokens_health_and_metrics(served, client):
    assert [m.id for m in client.models.list()] == ["mezzotint"]
    assert client.models.retrieve("mezzotint").id == "mezzotint"
    tokens = post(served, "/tokenize", {"prompt": "Copy these words"}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert post(served, "/detokenize", {"tokens": tokens["tokens"][1:]}).json()["prompt"] == "Copy these words"
    assert httpx.get(served.url + "/health").status_code == httpx.get(served.url + "/ready").status_code == 200
    text = httpx.get(served.url + "/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["mezzotint_committed_tokens_total"]) >= float(values["mezzotint_forwards_total"]) * 0.5 > 0
    assert float(values["mezzotint_running"]) == 0
    assert 'mezzotint_http_requests_total{path="/v1/models",status="200"}' in values
    assert "default" in httpx.get(served.url + "/recipes").json()


def test_keys_queue_and_drain():
    served = Served(ServerSettings(EngineSettings(running=1, waiting=1), keys=("open sesame",), drain_seconds=20))
    try:
        assert httpx.get(served.url + "/health").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0).models.list()
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="open sesame", max_retries=0)
        assert client.models.list().data
        asynchronous = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="open sesame", max_retries=0)
        long = {"model": "mezzotint", "messages": QUESTION, "extra_body": {"diffusion": {"gen_length": 96, "early_stop": "off"}}}

        async def crowd():
            jobs = [asyncio.create_task(asynchronous.chat.completions.create(**long)) for _ in range(4)]
            refused = [error for job in asyncio.as_completed(jobs) if (error := await outcome(job))]
            return refused

        async def outcome(job):
            try:
                return None if (await job).choices[0].message.content is not None else "no content"
            except openai.RateLimitError as error:
                return error

        refused = asyncio.run(crowd())
        assert len(refused) == 2
        assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)

        found = []
        asking = threading.Thread(target=lambda: found.append(client.chat.completions.create(**long)))
        asking.start()
        until = time.monotonic() + 60
        while not served.engine.running and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        served.end()
    asking.join(20)
    assert found[0].choices[0].finish_reason in ("stop", "length"), "an answer at hand is finished before the server ends"


def test_what_is_not_finished_in_time_ends_with_an_error():
    served = Served(ServerSettings(EngineSettings(running=2), drain_seconds=0.3))
    long = {"messages": QUESTION, "stream": True, "diffusion": {"gen_length": 2048, "early_stop": "off", "watch": True}}
    with httpx.stream("POST", served.url + "/v1/chat/completions", json=long, timeout=30) as found:
        lines = found.iter_lines()
        next(lines)
        served.server.should_exit = True
        last = [line for line in lines if line][-1]
    assert "shut down before the answer was complete" in json.loads(last.removeprefix("data: "))["error"]["message"]
    served.end()


def test_connections_that_send_no_request_are_closed():
    served = Served(ServerSettings(EngineSettings(), read_seconds=0.5))
    try:
        with socket.create_connection(("127.0.0.1", served.socket_port), timeout=10) as silent:
            assert silent.recv(1) == b""
        for begun in (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea"):
            with socket.create_connection(("127.0.0.1", served.socket_port), timeout=10) as slow:
                slow.sendall(begun)
                found = b""
                while part := slow.recv(1000):
                    found += part
            assert found.count(b"200 OK") == begun.count(b"\r\n\r\n")
        with socket.create_connection(("127.0.0.1", served.socket_port), timeout=10) as large:
            large.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
            assert b"400" in large.recv(100)
        with httpx.Client() as kept:
            assert kept.get(served.url + "/health").status_code == 200
            time.sleep(0.8)
            assert kept.get(served.url + "/health").status_code == 200
    finally:
        served.end()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--length", "8"], "the limit is 8"),
        (["--length", "64"], "the limit is 64"),
        (["--gen-length", "8192", "--block-length", "32"], "the limit is 4096"),
        (["--memory", "0.000001"], "the budget is"),
    ],
    ids=str,
)
def test_a_server_that_could_not_answer_does_not_start(words, told, capsys):
    from mezzotint.cli import main

    assert main(["serve", "--port", "0", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_grammars_that_cost_too_much_are_refused_by_their_edges():
    served = Served(ServerSettings(EngineSettings(), grammar_edges=400))
    wanted = {"messages": QUESTION, "max_tokens": 8, "response_format": {"type": "choice", "choices": ["yes", "no"]}}
    try:
        one = wanted | {"diffusion": {"gen_length": 8, "block_length": 8}}
        assert post(served, "/v1/chat/completions", one).status_code == 200
        for many in (one | {"n": 16}, wanted | {"diffusion": {"gen_length": 512, "block_length": 512}}):
            refused = post(served, "/v1/chat/completions", many)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "response_format"), refused.text
            assert "edges" in refused.text
    finally:
        served.end()


def test_text_behind_a_gap_that_would_not_be_seen_is_refused(served, monkeypatch):
    """As with prompt and suffix; models trained in blocks see nothing behind the active one."""
    from mezzotint import generation

    monkeypatch.setattr(generation, "unseen", lambda config, pieces: 7)
    found = post(served, "/infill", {"text": "a [[3]] b"})
    assert (found.status_code, found.json()["error"]["param"]) == (400, "text")
    assert found.json()["error"]["message"].startswith("7 tokens behind the gap would not be seen")


def test_long_stop_strings_are_looked_for_no_further_than_the_text_goes(served):
    compared = []

    class Text(str):
        def endswith(self, end):
            compared.append(end)
            return super().endswith(end)

    answer = Answer(served.engine.tokenizer, (), ("amber" * 200, "a" * 1000))
    answer.text, answer._sent = Text("amber a"), 3
    assert answer._safe() == 6
    assert len(compared) <= 8


def test_answers_match_what_was_asked_for(served, client):
    schema = {"type": "object", "properties": {"name": {"enum": ["a", "b"]}, "count": {"type": "integer"}}, "required": ["name", "count"]}
    request = {"model": "mezzotint", "messages": QUESTION, "max_tokens": 40, "extra_body": {"diffusion": SHORT}}
    wanted = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema, "strict": True}}
    found = client.chat.completions.create(**request, response_format=wanted)
    answer = json.loads(found.choices[0].message.content)
    assert answer["name"] in ("a", "b")
    assert isinstance(answer["count"], int)
    assert found.choices[0].finish_reason == "stop"
    pieces = client.chat.completions.create(**request, response_format=wanted, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in pieces) == found.choices[0].message.content
    chosen = post(served, "/v1/completions", {"prompt": "Is it?", "max_tokens": 4, "response_format": {"type": "choice", "choices": ["yes", "no"]}}).json()
    assert chosen["choices"][0]["text"] in ("yes", "no")
    for change, named in (
        ({"max_tokens": 3}, "at least"),
        ({"stop": "a"}, "stop cannot be combined"),
        ({"response_format": {"type": "regex", "regex": "("}}, "cannot be compiled"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "integer", "minimum": 3}}}}, "schema.minimum"),
    ):
        refused = post(served, "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 40, "response_format": wanted} | change)
        assert (refused.status_code, named in refused.text) == (400, True), refused.text


def test_answers_hold_back_what_may_change(served):
    tokenizer = served.engine.tokenizer
    text = "naïve café ☕ STOPPED here STOP gone"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for step in (1, 2, 5):
        answer = Answer(tokenizer, (), ("here STOP", "☕☕"))
        pieces = [answer.add(ids[i : i + step]) for i in range(0, len(ids), step)] + [answer.end("length")]
        assert "".join(pieces) == "naïve café ☕ STOPPED "
        assert answer.text == "naïve café ☕ STOPPED "
        assert answer.finish == "stop"
        assert all("�" not in piece and "STOP g" not in piece for piece in pieces)
    line = Answer(tokenizer, (), ("\n",))
    ids = tokenizer("amber coral\nlantern blue river", add_special_tokens=False)["input_ids"]
    assert line.add(ids) == "amber coral"
    assert line.tokens == tokenizer("amber coral", add_special_tokens=False)["input_ids"]
    cut = Answer(tokenizer, (), ("never",))
    assert cut.add(tokenizer("n", add_special_tokens=False)["input_ids"]) == ""
    assert cut.end("length") == "n"

    json.dumps(served.app.openapi())
