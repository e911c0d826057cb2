"""Prints how many tests passed, failed and were skipped by a JUnit report of ctest, pytest or node.

A suite of ctest is a program on cmocka, whose output says what became of each of its tests.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree


def outcomes(case):
    output = case.findtext("system-out") or ""
    failed = case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail"
    skipped = case.find("skipped") is not None or case.get("status") in ("notrun", "disabled")
    passed = len(re.findall(r"^\[ +OK \] ", output, re.MULTILINE))
    if not passed and not failed:
        return (0, 0, 1) if skipped else (1, 0, 0)
    names = set(re.findall(r"^\[ +FAILED +\] (?!\d+ test)(\S+)", output, re.MULTILINE))
    skips = set(re.findall(r"^\[ +SKIPPED +\] (?!\d+ test)(\S+)", output, re.MULTILINE))
    return passed, max(len(names), int(failed)), len(skips)


cases = list(ElementTree.parse(sys.argv[1]).getroot().iter("testcase"))
print(*(sum(column) for column in zip((0, 0, 0), *map(outcomes, cases))))
