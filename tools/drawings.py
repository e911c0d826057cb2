#!/usr/bin/env python3
"""Draws state machines into ARCHITECTURE.md from the tables in the code that they run by.

usage: drawings.py [--check]

Each drawing stands between `<!-- drawing: NAME -->` and `<!-- end -->`. With --check nothing is written: status 1, and
which, where one is not what its table says.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / 'ARCHITECTURE.md'


def table(path, pattern):
    """The text of a table in a source file."""
    match = re.search(pattern, (ROOT / path).read_text(encoding='utf-8'), re.DOTALL)
    if not match:
        sys.exit(f'{path}: the table is not where it was')
    return match[1]


def task():
    text = table('storage/migrations/0010_tasks.sql', r'ways CONSTANT text\[\] := ARRAY\[(.*?)\];')
    return [tuple(way.split()) for way in re.findall(r"'([A-Z_ ]+)'", text)]


def session_attempt():
    text = table('server/channel/session.c', r'attempt_ways\[.*?\] = \{\n(.*?)\n\};')
    return [(source, target) for source, targets in re.findall(r'\[ATTEMPT_(\w+)\] = \{(.*?)\}', text)
            for target in re.findall(r'\[ATTEMPT_(\w+)\] = true', targets)]


def agent_attempt():
    text = table('tools/genie-agent/job_state.c', r'states\[STATES\] = \{\n(.*?)\n\};')
    return [(source, target) for source, targets in re.findall(r'\[STATE_(\w+)\] = \{(.*?)\}', text)
            for target in re.findall(r'TO\((\w+)\)', targets)]


DRAWINGS = {'task': task, 'session attempt': session_attempt, 'agent attempt': agent_attempt}


def draw(ways):
    sources, targets = [w[0] for w in ways], {w[1] for w in ways}
    lines = [f'    [*] --> {sources[0]}'] + [f'    {a} --> {b}' for a, b in ways]
    lines += [f'    {end} --> [*]' for end in dict.fromkeys(w[1] for w in ways) if end not in sources]
    assert len(ways) > 1 and targets
    return '```mermaid\nstateDiagram-v2\n' + '\n'.join(lines) + '\n```'


def main():
    text = DOCUMENT.read_text(encoding='utf-8')
    wrong = []
    for name, ways in DRAWINGS.items():
        place = re.compile(rf'(<!-- drawing: {name} -->\n)(.*?)(\n<!-- end -->)', re.DOTALL)
        match = place.search(text)
        if not match:
            sys.exit(f'ARCHITECTURE.md has no place for the drawing `{name}`')
        drawing = draw(ways())
        if match[2] != drawing:
            wrong.append(name)
            text = text[:match.start(2)] + drawing + text[match.end(2):]
    if '--check' in sys.argv[1:]:
        sys.exit('\n'.join(f'the drawing `{name}` is not what its table says: run tools/drawings.py' for name in wrong) or 0)
    DOCUMENT.write_text(text, encoding='utf-8')


main()
