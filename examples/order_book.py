"""Keep the order book of a stock from the rows of the `depth` ring."""

import asyncio

from ibfast import Config, IBKRConnectionManager, Kind

ASK, BID = 0, 1
INSERT, UPDATE, DELETE = 0, 1, 2
LEVELS = 5


def apply(book: dict[int, list[tuple[float, float]]], row) -> None:
    """Apply one operation to the book: a list of (price, size) for each side, the best level first."""
    if row["kind"] == Kind.DEPTH_RESET:  # the gateway sends the book anew
        book.update({ASK: [], BID: []})
        return
    levels, position = book[int(row["side"])], int(row["position"])
    if row["operation"] != INSERT:
        del levels[position : position + 1]
    if row["operation"] != DELETE:
        levels.insert(position, (float(row["price"]), float(row["size"])))


async def main() -> None:
    book: dict[int, list[tuple[float, float]]] = {ASK: [], BID: []}
    async with IBKRConnectionManager(Config.load()) as manager:
        stream = await manager.subscribe("AAPL", "DEPTH", num_rows=LEVELS)
        while min(len(book[BID]), len(book[ASK])) < LEVELS:
            for row in await anext(stream):
                apply(book, row)
        for (bid, bid_size), (ask, ask_size) in zip(book[BID], book[ASK], strict=True):
            print(f"{bid_size:8g} {bid:10.2f} {ask:10.2f} {ask_size:8g}")


asyncio.run(main())
