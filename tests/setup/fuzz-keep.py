#!/usr/bin/env python3
"""Chooses which of a fuzzer's inputs go into the corpus that is committed.

    fuzz-keep.py CONTROL CORPUS MOST

CONTROL is what libFuzzer wrote when it merged (-merge_control_file): every file, and what each of
them reaches. The seeds in CORPUS stay. Then, one after the other, the file that reaches most of what
nothing before it does, until there are MOST files or nothing is gained; what is no longer needed goes.
"""

import pathlib
import sys

control, corpus, most = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
lines = pathlib.Path(control).read_text().splitlines()
count = int(lines[0])
files = [pathlib.Path(name) for name in lines[2 : 2 + count]]
reached = {}
for line in lines[2 + count :]:
    if line.startswith("FT "):
        _, number, *features = line.split()
        reached[files[int(number)]] = set(features)

covered = set()
kept = 0
for file, features in reached.items():
    if file.parent == corpus and file.name.startswith("seed-"):
        covered |= features
        kept += 1
chosen = []
while kept < most:
    # The shorter of two that are as good.
    best = max(reached, key=lambda file: (len(reached[file] - covered), -file.stat().st_size))
    if not reached[best] - covered:
        break
    covered |= reached[best]
    chosen.append(best)
    kept += 1

everything = set().union(*reached.values())
content = {file: file.read_bytes() for file in chosen}
for file in corpus.iterdir():
    if not file.name.startswith("seed-"):
        file.unlink()
for file, data in content.items():
    (corpus / file.name).write_bytes(data)
print(f"{corpus.name}: {kept} kept reach {len(covered)} of the {len(everything)} that {count} do")
