"""A process with the subject in it, to be killed: `python -m benchmarks.faults.child '{"port": …, "store": …}'`.

It declares the streams that it is told, or none: then the store must know them. It says "live" when the manager is
healthy, and goes on.
"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.faults.subject import WISHES, Subject, config
from ibfast.config import SessionConfig

POLL_S = 0.05


async def main(port: int, store: str, wishes: list[str]) -> None:
    subject = Subject(
        config(port, session=SessionConfig(store=store)), tuple(wish for wish in WISHES if wish.name in wishes)
    )
    await subject.start()
    while subject.reasons():
        await asyncio.sleep(POLL_S)
    print("live", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
