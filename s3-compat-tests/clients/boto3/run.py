"""Runs one case with boto3: run.py CASE."""

import sys

import expect
import many
import objects
import protocol
import uploads

name = sys.argv[1]
for module in (objects, many, uploads, protocol):
    case = getattr(module, f"case_{name}", None)
    if case:
        case(expect.client())
        assert expect.checks() > 0, "the case checked nothing"
        print("all checks hold")
        sys.exit(0)
sys.exit(f"no case {name}")
