#!/usr/bin/env python3
"""Changes a configuration in one place at a time.

    vary.py FILE    one line of JSON on standard output for each: {"what": "…", "text": "…"}

Each value is taken away, or replaced by one of another type, by one at the edge of its own, by a list of
it. A key that more than one target has is replaced in the first, and taken away in each: what a target
needs is its profile's. The first line is the configuration as it is.
"""

import copy
import datetime
import json
import sys
import tomllib


def toml(value):
    """A value as TOML writes it in one line."""
    match value:
        case dict():
            pairs = (f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items())
            return "{ " + ", ".join(pairs) + " }"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case datetime.date():  # and datetime.datetime
            return value.isoformat()
        case _:
            return json.dumps(value)  # of ASCII alone, so that TOML reads the same


def document(table):
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items())


def others(value):
    """What to try instead."""
    match value:
        case bool():
            return [not value, "true", [value]]
        case int():
            return [0, -1, 2**32, str(value), [value]]
        case str():
            return ["", "x", 5, [value]]
        case list():
            return [[], value[0], [5], value * 2]
        case dict():
            return [{}, "x", [value]]
        case _:
            return ["2027-06-30", 2027, datetime.date(1960, 1, 1), datetime.datetime(2027, 6, 30, 12)]


def places(value, path=()):
    """The way to every value, to that of tables and lists too."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from places(below, (*path, key))


def at(table, path):
    for key in path:
        table = table[key]
    return table


def main():
    with open(sys.argv[1], "rb") as file:
        table = tomllib.load(file)

    def say(what, changed):
        print(json.dumps({"what": what, "text": document(changed)}))

    say("as it is", table)
    replaced = set()
    for path in places(table):
        what = ".".join(map(str, path))
        of_target = path[-1] if len(path) == 5 and path[0] == "workload" and path[2] == "target" else path
        values = [] if of_target in replaced else others(at(table, path))
        replaced.add(of_target)
        for other in values:
            changed = copy.deepcopy(table)
            at(changed, path[:-1])[path[-1]] = other
            say(f"{what} = {toml(other)}", changed)
        changed = copy.deepcopy(table)
        del at(changed, path[:-1])[path[-1]]
        say(f"without {what}", changed)


main()
