"""A batch on a Ray cluster (Ray Data): every actor holds an engine, and what an actor took with it when it died is asked again."""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from typing import Any

from mezzotint.batch.answering import Outcome, one_by_one
from mezzotint.batch.questions import Question, Unanswerable
from mezzotint.engine import EngineSettings, made
from mezzotint.engine.cluster import cluster
from mezzotint.engine.replicas import Replicas
from mezzotint.recipe import Recipe


class Answerer:
    """One actor: an engine that answers a few questions at a time. Columns are text, since questions have different fields."""

    def __init__(self, settings: EngineSettings, recipe: Recipe, seed: int):
        self.engine, self.recipe, self.seed = made(settings), recipe, seed

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        asked = [Question(*json.loads(text)) for text in batch["question"]]
        found = []
        for question, result in one_by_one(self.engine, asked, self.recipe, self.seed):
            answer = {"error": result.reason} if isinstance(result, Unanswerable) else {"answer": result}
            found.append(json.dumps({"number": question.number, **answer}))
        return {"found": found}


def on_ray(questions: Iterable[Question], settings: EngineSettings, recipe: Recipe, seed: int, replicas: Replicas) -> Iterator[Outcome]:
    """Every question with its answer, as they come. The questions are held in memory while they are out."""
    asked = {question.number: question for question in questions}
    with cluster(replicas):
        import ray.data  # sets up its own logger

        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.enable_operator_progress_bars = False
        size = max(1, min(settings.running, math.ceil(len(asked) / (4 * replicas.most))))
        rows = [{"question": json.dumps([q.number, q.id, q.fields])} for q in asked.values()]
        answered = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / size)).map_batches(
            Answerer,
            fn_constructor_args=(settings, recipe, seed),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(min_size=replicas.least, max_size=replicas.most),
            num_cpus=replicas.cpus,
            num_gpus=replicas.gpus or None,
        )
        for row in answered.iter_rows():
            found = json.loads(row["found"])
            question = asked[found["number"]]
            yield question, found["answer"] if "answer" in found else Unanswerable(question.number, question.id, found["error"])
