"""Runs `langgraph-checkpoint-conformance` against a relay: `python conformance.py http://127.0.0.1:8080`.

It ends with 0 where every clause was run and holds, the optional ones among them.
"""

import asyncio
import sys
import uuid

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.report import ProgressCallbacks

from tidemill_checkpoint import TidemillSaver


async def main(url: str) -> int:
    bucket = f"conformance-{uuid.uuid4()}"

    @checkpointer_test(name="TidemillSaver")
    async def saver():
        async with TidemillSaver(url, bucket=bucket) as made:
            yield made

    report = await validate(saver, progress=ProgressCallbacks.verbose())
    report.print_report()
    results = {name: result for name, result in report.results.items() if result.passed is True}
    missing = {capability.value for capability in ALL_CAPABILITIES} - results.keys()
    if missing:
        print(f"not passed: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    print(f"all {sum(result.tests_passed for result in results.values())} clauses hold")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python conformance.py URL")
    sys.exit(asyncio.run(main(sys.argv[1])))
