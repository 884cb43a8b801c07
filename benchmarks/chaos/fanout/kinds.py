"""The kinds of problems that are judged; those that show again most surely come first, and are shrunk first."""

from __future__ import annotations

__all__ = ["KINDS"]

KINDS = {
    "exception": "an exception that nobody caught, or that was logged",
    "failed": "the server says that it has failed",
    "missing": "rows that the rings published did not come, and nothing says so",
    "surplus": "rows came that are not the channel's, or that it has had",
    "order": "rows or states came twice, or out of order",
    "value": "a row came with other values than in the ring",
    "early row": "rows came where a state had to come first",
    "state": "a snapshot is not what the rows up to it make",
    "book": "an order book is not what its operations in the rings make",
    "lag": "a lag says what is not so",
    "resumed": "what was resumed does not go on, or what could go on was not resumed",
    "after the end": "something came of what was over: a channel, a subscription, a conversation",
    "answer": "a request was not answered, not once, or wrongly",
    "wire": "a message that the protocol does not have",
    "gap": "an interruption of the source was not told, or there was none",
    "cut": "a connection was refused or cut without a reason",
    "rest": "after everything was well again, somebody lacked something",
    "pages": "/healthz or /metrics say what is not so",
    "left": "when all had gone, something was left",
    "hang": "something did not end",
}
