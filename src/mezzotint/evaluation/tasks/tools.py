"""Tool calls: function signatures and a request in, one JSON call out."""

import json
import random
from collections.abc import Callable

from mezzotint.evaluation.tasks.example import Example
from mezzotint.evaluation.tasks.words import KEYS, NAMES

CITIES = ["Athens", "Berlin", "Cairo", "Delhi", "Lima", "Lisbon", "London", "Madrid", "Oslo", "Paris", "Prague", "Rome", "Seoul", "Tokyo", "Vienna", "Warsaw"]
ROOMS = ("kitchen", "office", "garden", "cellar", "studio")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FILLERS: dict[str, Callable[[random.Random], str | int]] = {
    "city": lambda r: r.choice(CITIES),
    "start": lambda r: r.choice(CITIES),
    "person": lambda r: r.choice(NAMES),
    "text": lambda r: " ".join(r.sample(KEYS, 2)),
    "label": lambda r: r.choice(KEYS),
    "room": lambda r: r.choice(ROOMS),
    "hour": lambda r: r.randint(0, 23),
    "minutes": lambda r: r.randint(2, 90),
    "degrees": lambda r: r.randint(15, 28),
    "amount": lambda r: r.randint(5, 500),
    "day": lambda r: r.choice(DAYS),
}
TOOLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "get_weather": (("city", "day"), ("What is the weather in {city} on {day}?", "Will it rain on {day} in {city}?")),
    "set_timer": (("minutes", "label"), ("Start a {minutes} minute timer for {label}.", "Time {label} for {minutes} minutes.")),
    "set_alarm": (("hour", "day"), ("Wake me at {hour} on {day}.", "Set an alarm on {day} at {hour}.")),
    "send_message": (("person", "text"), ("Tell {person}: {text}.", "Send {text} to {person}.")),
    "call": (("person",), ("Call {person}.", "Ring up {person} for me.")),
    "set_heating": (("room", "degrees"), ("Make the {room} {degrees} degrees.", "Heat the {room} to {degrees} degrees.")),
    "switch_lights": (("room",), ("Switch the lights in the {room}.", "Lights in the {room}, please.")),
    "find_train": (("start", "city", "day"), ("Find a train from {start} to {city} on {day}.", "I go from {start} to {city} by train on {day}.")),
    "find_hotel": (("city", "amount"), ("Find a hotel in {city} below {amount} coins.", "I need a hotel for {amount} coins in {city}.")),
    "pay": (("person", "amount"), ("Pay {amount} coins to {person}.", "Give {person} {amount} coins.")),
    "add_note": (("label", "text"), ("Note under {label}: {text}.", "Write {text} into my {label} notes.")),
    "book_table": (("person", "hour", "city"), ("Book a table with {person} at {hour} in {city}.", "Dinner in {city} at {hour} with {person}.")),
}


def signature(name: str) -> str:
    return f"{name}({', '.join(TOOLS[name][0])})"


def make(rng: random.Random, hard: bool) -> Example:
    """2–4 signatures to choose from; hard: 6–8. Text stands in quotation marks in the request too, so that it is the same tokens in the call."""
    offered = rng.sample(sorted(TOOLS), rng.randint(6, 8) if hard else rng.randint(2, 4))
    name = rng.choice(offered)
    fields, phrases = TOOLS[name]
    values = {field: FILLERS[field](rng) for field in fields}
    named = {field: json.dumps(value) for field, value in values.items()}
    prompt = f"Functions: {'; '.join(map(signature, offered))}\n{rng.choice(phrases).format(**named)}"
    call = {"name": name, "arguments": values}
    return Example("tools", prompt, json.dumps(call), hard, call)


def score(example: Example, text: str) -> bool:
    """The response parses as JSON and is the call."""
    try:
        return json.loads(text) == example.facts
    except ValueError:
        return False
