"""What an answer must match, as a regular expression. A schema keyword that could not be enforced is refused by name, never passed over."""

import json
from dataclasses import dataclass
from typing import Any

META = frozenset(r"\.+*?()|[]{}^$#&-~/")
EVERYWHERE = {"type", "enum", "const", "anyOf", "$ref", "title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions", "$comment"}
OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "format"},
    "integer": set(),
    "number": set(),
    "boolean": set(),
    "null": set(),
}
DAY = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
DATE = f"[1-9][0-9]{{3}}-{DAY}"
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
FORMATS = {"date-time": f"{DATE}T{TIME}", "date": DATE, "time": TIME, "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"}
"""Formats of strings, as RFC 3339 and RFC 9562 have them. Every match is valid; years below 1000, leap days and leap seconds are left out."""
DEEPEST = 16
LONGEST_CHAIN = 64
"""Most references that lead from one to the next."""
LARGEST_SCHEMA = 4096
"""Most parts of a schema once its references are written out."""
LARGEST = 256
"""Most repetitions that minItems, maxItems, minLength and maxLength may ask for."""


class GrammarError(ValueError):
    """A grammar that cannot be honoured; the message says what is in the way."""


@dataclass(frozen=True)
class Specification:
    """kind: "choice" (a JSON list of texts), "regex" or "schema" (JSON); value: as text, so that it can be a key."""

    kind: str
    value: str

    @staticmethod
    def choice(choices: list[str]) -> "Specification":
        return Specification("choice", json.dumps(choices))

    @staticmethod
    def regex(expression: str) -> "Specification":
        return Specification("regex", expression)

    @staticmethod
    def schema(schema: dict[str, Any]) -> "Specification":
        """Raises GrammarError if a keyword could not be enforced."""
        check(schema, "schema", 0)
        try:
            return Specification("schema", json.dumps(spelled_out(schema), allow_nan=False))
        except ValueError as error:
            raise error if isinstance(error, GrammarError) else GrammarError("the schema has a number that JSON does not know") from None

    def expression(self) -> str:
        """The regular expression, in the syntax of Rust's regex crate."""
        if self.kind == "choice":
            return "|".join("".join(f"\\{c}" if c in META else c for c in text) for text in json.loads(self.value))
        if self.kind == "regex":
            return unanchored(self.value)
        from outlines_core import json_schema

        return json_schema.build_regex_from_schema(self.value)


def unanchored(expression: str) -> str:
    """Without ^ at its beginning and $ at its end, which say what holds anyway: all of the answer matches."""
    escaped = (len(expression) - len(expression[:-1].rstrip("\\"))) % 2 == 0
    return expression.removeprefix("^") if escaped else expression.removeprefix("^").removesuffix("$")


def spelled_out(schema: dict[str, Any]) -> dict[str, Any]:
    """A checked schema without references, and with every string's format replaced by its expression. Raises GrammarError for a reference that leads nowhere or
    round in a circle."""
    left = LARGEST_SCHEMA

    def plain(part: dict[str, Any], within: tuple[str, ...]) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise GrammarError(f"the schema has more than {LARGEST_SCHEMA} parts once its $refs are written out; make it smaller")
        if "$ref" in part:
            if part["$ref"] in within:
                raise GrammarError(f"$ref={part['$ref']!r} is recursive, which is not supported")
            if len(within) == LONGEST_CHAIN:
                raise GrammarError(f"$ref={part['$ref']!r} is the end of more than {LONGEST_CHAIN} references, each inside the one before; nest them less")
            return plain(found_at(schema, part["$ref"]), (*within, part["$ref"]))
        found = {word: value for word, value in part.items() if word not in ("$defs", "definitions")}
        if "format" in part:
            found["pattern"] = FORMATS[found.pop("format")]
        if "properties" in part:
            found["properties"] = {name: plain(member, within) for name, member in part["properties"].items()}
        if "items" in part:
            found["items"] = plain(part["items"], within)
        if "anyOf" in part:
            found["anyOf"] = [plain(member, within) for member in part["anyOf"]]
        return found

    return plain(schema, ())


def found_at(schema: dict[str, Any], reference: Any) -> dict[str, Any]:
    """The part of a schema that a reference means."""
    table, _, name = str(reference).removeprefix("#/").partition("/")
    name = name.replace("~1", "/").replace("~0", "~")
    if not str(reference).startswith(("#/$defs/", "#/definitions/")) or name not in schema.get(table, {}):
        raise GrammarError(f"$ref={reference!r} is not supported; accepted: #/$defs/NAME and #/definitions/NAME of names that are there")
    return schema[table][name]


def check(schema: Any, where: str, depth: int) -> None:
    """Refuse what the translation to a regular expression would pass over."""
    if not isinstance(schema, dict):
        raise GrammarError(f"{where} must be an object")
    if depth > DEEPEST:
        raise GrammarError(f"{where} is nested more than {DEEPEST} deep")
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or ("type" in schema and not kinds) or not all(isinstance(kind, str) and kind in OF_TYPE for kind in kinds):
        raise GrammarError(f"{where}.type={schema['type']!r} is unknown; accepted: {', '.join(OF_TYPE)}")
    if not any(word in schema for word in ("type", "enum", "const", "anyOf", "$ref")):
        raise GrammarError(f"{where} has no type, enum, const, anyOf or $ref, so it allows anything; say what it is")
    allowed = EVERYWHERE.union(*(OF_TYPE[kind] for kind in kinds))
    for word, value in schema.items():
        if word not in allowed:
            raise GrammarError(f"{where}.{word} is not supported")
        if word in ("minItems", "maxItems", "minLength", "maxLength") and not (type(value) is int and 0 <= value <= LARGEST):
            raise GrammarError(f"{where}.{word}={value!r} must be a whole number from 0 to {LARGEST}")
    if "format" in schema and (not isinstance(schema["format"], str) or schema["format"] not in FORMATS or "minLength" in schema or "maxLength" in schema):
        raise GrammarError(f"{where}.format={schema['format']!r} is not supported; accepted, without minLength and maxLength: {', '.join(sorted(FORMATS))}")
    alternatives = [word for word in ("enum", "const", "anyOf", "$ref") if word in schema]
    for word in ("enum", "anyOf"):
        if word in schema and not (isinstance(schema[word], list) and schema[word]):
            raise GrammarError(f"{where}.{word} must be a list with at least one entry")
    if len(alternatives) > 1 or (alternatives and set(schema) & allowed - EVERYWHERE):
        raise GrammarError(f"{where}.{alternatives[0]} cannot be combined with other conditions")
    if alternatives in (["anyOf"], ["$ref"]) and kinds:
        raise GrammarError(f"{where}.{alternatives[0]} cannot be combined with type")
    if "object" in kinds and not schema.get("properties"):
        raise GrammarError(f"{where} is an object without properties; name them")
    if "array" in kinds and "items" not in schema:
        raise GrammarError(f"{where} is an array without items; say what they are")
    if schema.get("additionalProperties", False) not in (True, False):
        raise GrammarError(f"{where}.additionalProperties must be true or false")
    if len(kinds) > 1 and (set(schema) - EVERYWHERE or {"object", "array"} & set(kinds)):
        raise GrammarError(f"{where}.type with several types takes no further conditions; use anyOf")
    if (alternatives == ["enum"] and kinds) or (alternatives == ["const"] and kinds):
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if not isinstance(values, list) or not all(is_a(value, kinds) for value in values):
            raise GrammarError(f"{where}.{alternatives[0]} has values that are not of type {', '.join(kinds)}")
    properties, required = members(schema, "properties", where), schema.get("required", [])
    names = [name for name, _ in properties]
    if not isinstance(required, list) or any(name not in names for name in required):
        raise GrammarError(f"{where}.required={required!r} must be a list of names from properties")
    for name in names:
        if json.dumps(name, ensure_ascii=False)[1:-1] != name:
            raise GrammarError(f"{where}.properties has the name {name!r}, which JSON can only write with escapes; accepted: names without them")
    parts = [(f"{where}.properties.{name}", part) for name, part in properties]
    parts += [(f"{where}.{table}.{name}", part) for table in ("$defs", "definitions") for name, part in members(schema, table, where)]
    parts += [(f"{where}.items", schema["items"])] if "items" in schema else []
    parts += [(f"{where}.anyOf", part) for part in schema["anyOf"]] if isinstance(schema.get("anyOf"), list) else []
    for place, part in parts:
        check(part, place, depth + 1)


def members(schema: dict[str, Any], word: str, where: str) -> list[tuple[str, Any]]:
    found = schema.get(word, {})
    if not isinstance(found, dict):
        raise GrammarError(f"{where}.{word} must be an object")
    return list(found.items())


def is_a(value: Any, kinds: list[str]) -> bool:
    """Whether a value is of one of JSON's types."""
    if isinstance(value, bool):
        return "boolean" in kinds
    names = {str: ["string"], int: ["integer", "number"], float: ["number"], type(None): ["null"], list: ["array"], dict: ["object"]}
    return any(kind in kinds for kind in names[type(value)])
