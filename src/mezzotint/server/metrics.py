"""What Prometheus reads at /metrics."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mezzotint.engine import Desk, Round, Ticket

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
PATHS = tuple("/ /v1/completions /v1/fim/completions /v1/chat/completions /v1/models /infill /tokenize /detokenize /recipes /health /ready /metrics".split())
RUNS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """One engine's figures, in a registry of their own."""

    def __init__(self, engine: Desk):
        self.registry = CollectorRegistry()
        count = {
            "forwards": "forwards of the network, each shared by one or more requests",
            "denoising_steps": "denoising steps of all requests",
            "committed_tokens": "tokens decided",
            "positions_computed": "rows run through the network",
            "positions_remembered": "visible rows read from memory instead of computed (cache hits)",
        }
        self.counts = {name: Counter(f"mezzotint_{name}", text, registry=self.registry) for name, text in count.items()}
        self.ended = Counter(
            "mezzotint_runs", "runs by how they ended (an answer is one run, a gap of unknown size several)", ["reason"], registry=self.registry
        )
        self.requests = Counter("mezzotint_http_requests", "HTTP requests by path and status", ["path", "status"], registry=self.registry)
        self.batch = Histogram("mezzotint_batch_size", "requests that shared a forward", buckets=RUNS, registry=self.registry)
        self.step_seconds = Histogram("mezzotint_forward_seconds", "seconds of a forward with its commits", buckets=SECONDS, registry=self.registry)
        self.seconds = Histogram("mezzotint_answer_seconds", "seconds from submission to the end", buckets=SECONDS, registry=self.registry)
        self.first = Histogram("mezzotint_first_text_seconds", "seconds from submission to the first text", buckets=SECONDS, registry=self.registry)
        gauges = {
            "running": ("requests in progress", lambda: len(engine.running)),
            "engines": ("engines that can work", lambda: engine.engines),
            "waiting": ("requests in the queue", lambda: len(engine.waiting)),
            "memory_reserved_bytes": ("bytes set aside for running requests, by estimate", lambda: engine.reserved),
            "memory_budget_bytes": ("bytes that may be set aside", lambda: engine.capacity),
            "tokens_per_forward": ("tokens decided per shared forward since the start", lambda: self.tokens / max(1, self.forwards)),
        }
        for name, (text, read) in gauges.items():
            Gauge(f"mezzotint_{name}", text, registry=self.registry).set_function(read)
        self.tokens = self.forwards = 0
        engine.on_round, engine.on_end = self.on_round, self.on_end

    def on_round(self, round: Round) -> None:
        forwards = int(round.computed > 0)
        self.tokens += round.committed
        self.forwards += forwards
        amounts = (forwards, round.steps, round.committed, round.computed, round.remembered)
        for counter, amount in zip(self.counts.values(), amounts, strict=True):
            counter.inc(amount)
        self.batch.observe(round.runs)
        self.step_seconds.observe(round.seconds)

    def on_end(self, ticket: Ticket, reason: str) -> None:
        self.ended.labels(reason).inc()
        self.seconds.observe(time.monotonic() - ticket.submitted)

    def on_response(self, path: str, status: int) -> None:
        self.requests.labels(path if path in PATHS else "other", str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
