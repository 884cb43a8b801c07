"""What ib_async sends. Runs in an environment with ib_async 2.1.0, not in ours.

It answers as `oracle_client.py` does, to "send" alone.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ib_async import ComboLeg, Contract, DeltaNeutralContract
from ib_async.client import Client


def build(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    values = dict(value["contract"])
    values.pop("lastTradeDate", None)
    values["comboLegs"] = [ComboLeg(**leg) for leg in values.get("comboLegs", [])]
    if values.get("deltaNeutralContract"):
        values["deltaNeutralContract"] = DeltaNeutralContract(**values["deltaNeutralContract"])
    return Contract(**values)


def send(server_version: int, method: str, args: list[Any]) -> list[str]:
    sent: list[str] = []
    client = Client(None)
    client.connState = Client.CONNECTED
    client._serverVersion = server_version
    client.sendMsg = lambda message: sent.append(message.encode().hex())
    if method == "startApi":
        client.clientId, client.optCapab = args
        args = []
    getattr(client, method)(*map(build, args))
    return sent


def main() -> None:
    for line in sys.stdin:
        question = json.loads(line)
        assert question.pop("ask") == "send"
        print(json.dumps({"answer": send(**question)}), flush=True)


if __name__ == "__main__":
    main()
