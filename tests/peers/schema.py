#!/usr/bin/env python3
"""Holds TOML against a JSON Schema, by a validator that nobody here wrote (python-jsonschema).

    schema.py SCHEMA      one line of JSON on standard input for each TOML text: {"text": "…"}

One line of JSON on standard output for each: {"verdict": "takes" | "refuses" | "no TOML", "why": […]}.
The schema itself is held against the meta-schema that it names (draft 2020-12) first.
"""

import datetime
import json
import sys
import tomllib

from jsonschema import Draft202012Validator


def plain(value):
    """Dates and times as texts, as tools for TOML have them (TOML v1.0.0: RFC 3339)."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return value


def judge(validator, text):
    try:
        document = plain(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        return {"verdict": "no TOML", "why": [str(error)]}
    why = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    return {"verdict": "refuses" if why else "takes", "why": why}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    if schema["$schema"] != Draft202012Validator.META_SCHEMA["$id"]:
        sys.exit(f"of another draft: {schema['$schema']}")
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for line in sys.stdin:
        print(json.dumps(judge(validator, json.loads(line)["text"])), flush=True)


main()
