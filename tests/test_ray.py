"""A Ray cluster of this machine: a batch and a server, both of which lose a replica to kill -9 while they work."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import mezzotint as mz
from mezzotint.batch.answering import one_by_one
from mezzotint.batch.questions import Question
from mezzotint.engine import Engine, EngineSettings
from mezzotint.engine.replicas import Replicas

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'mezzotint[ray]'")
pytest.importorskip("fastapi", reason="needs the extra: pip install 'mezzotint[serve]'")
httpx = pytest.importorskip("httpx", reason="talks to the server with httpx: pip install httpx")

from mezzotint.batch.cluster import on_ray  # noqa: E402
from mezzotint.engine.cluster import cluster  # noqa: E402
from mezzotint.server import ray as served  # noqa: E402
from mezzotint.server.settings import ServerSettings  # noqa: E402

SETTINGS = EngineSettings(running=4, waiting=64)
RECIPE = mz.Recipe(gen_length=32, block_length=16, early_stop="off")


def workers(title: str) -> list[int]:
    """Processes below this one whose title begins so."""
    parents, titles = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().split("PPid:")[1].split()[0])
            titles[int(status.parent.name)] = (status.parent / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, IndexError):
            continue

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, text in titles.items() if text.startswith(title) and ours(pid)]


def soon(what, seconds: float = 300):
    """The first true value of what(), which is asked again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError("waited too long")


@pytest.fixture(scope="module")
def local():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(mz.__file__).parent.parent))
        patch.delenv("RAY_ADDRESS", raising=False)
        with cluster(Replicas(1, 1, 1.0)) as mine:
            assert mine
            yield


def test_a_batch_survives_its_actor(local):
    """Every line is answered once, as without Ray, though the actor is killed while it works."""
    asked = [Question(i, f"q{i}", {"prompt": f"Copy these words: amber coral {i}"}) for i in range(1, 13)] + [Question(13, "bad", {"prompt": " "})]
    found, killed = {}, []
    for question, result in on_ray(asked, SETTINGS, RECIPE, 0, Replicas()):
        assert question.number not in found
        found[question.number] = result
        if not killed:
            killed = workers("ray::MapWorker")
            os.kill(killed[0], signal.SIGKILL)
    assert killed
    engine = Engine(SETTINGS)
    for question, alone in one_by_one(engine, asked, RECIPE, 0):
        assert (found[question.number]["text"] if question.number < 13 else str(found[13])) == (alone["text"] if question.number < 13 else str(alone))
    engine.close()
    assert sorted(found) == list(range(1, 14))


def test_a_server_answers_again_by_itself(local):
    """The same HTTP surface as without Ray; a replica that is killed under load is replaced."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    settings = ServerSettings(SETTINGS, "mine", mz.named("threshold"), ("sesame",))
    key = {"Authorization": "Bearer sesame"}
    body = {"model": "mine", "messages": [{"role": "user", "content": "Copy these words: amber coral"}], "max_tokens": 16, "seed": 1}

    def chat():
        try:
            answer = httpx.post(url + "/v1/chat/completions", json=body, headers=key, timeout=60)
        except httpx.HTTPError:
            return None
        return answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else None

    with served.serving(settings, Replicas(), "127.0.0.1", port):
        before = soon(chat)
        assert httpx.post(url + "/v1/chat/completions", json=body, timeout=60).status_code == 401
        refused = httpx.post(url + "/v1/chat/completions", json=body | {"nonsense": 1}, headers=key, timeout=60)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "nonsense")
        assert [m["id"] for m in httpx.get(url + "/v1/models", headers=key, timeout=60).json()["data"]] == ["mine"]
        assert httpx.get(url + "/health", timeout=60).json() == {"status": "ok"}
        with httpx.stream("POST", url + "/v1/chat/completions", json=body | {"stream": True}, headers=key, timeout=60) as stream:
            events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
        assert events[-1] == "[DONE]"
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
        assert "".join(delta.get("content") or "" for delta in deltas) == before

        [victim] = workers(f"ray::ServeReplica:{served.NAME}")
        load = [threading.Thread(target=chat) for _ in range(4)]
        for thread in load:
            thread.start()
        os.kill(victim, signal.SIGKILL)
        for thread in load:
            thread.join()
        assert soon(chat) == before
        assert workers(f"ray::ServeReplica:{served.NAME}") not in ([], [victim])


def test_settings_of_serve_run_are_checked():
    application = served.app({"recipe": "threshold", "replicas": "1:3", "running": "7", "name": "mine"})
    assert application
    with pytest.raises(ValueError, match="speed is unknown; accepted: block_causal, "):
        served.app({"speed": "7"})
    with pytest.raises(ValueError, match="running"):
        served.app({"running": "many"})
    with pytest.raises(ValueError, match="replicas='a'"):
        served.app({"replicas": "a"})


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--replicas", "1:2"], "--replicas=1:2: a range needs --ray"), (["--cpus", "2"], "--cpus needs --ray"), (["--ray", "--replicas", "0"], "replicas=0:0")],
    ids=str,
)
def test_options_of_serve(words, told, capsys):
    from mezzotint.cli import main

    assert main(["serve", "--port", "0", *words]) == 2
    assert told in capsys.readouterr().err
