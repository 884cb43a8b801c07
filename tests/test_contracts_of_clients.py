"""Contracts of clients that others wrote are accepted: their real objects, in environments that have them."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ibfast import Contract, Option, Stock
from tests.support.oracles import ASYNC_CLIENT, NEW_CLIENT, OLD_CLIENT, ROOT, python_with

IBAPI = """
from ibapi.contract import Contract
stock = Contract()
stock.symbol, stock.secType, stock.exchange, stock.currency = "AAPL", "STK", "SMART", "USD"
option = Contract()
option.symbol, option.secType, option.exchange, option.currency = "AAPL", "OPT", "SMART", "USD"
option.lastTradeDateOrContractMonth, option.strike, option.right = "20270115", 250.0, "C"
"""
IB_ASYNC = """
from ib_async import Option, Stock
stock = Stock("AAPL", "SMART", "USD")
option = Option("AAPL", "20270115", 250.0, "C", "SMART", currency="USD")
"""
SHOW = f"""
import sys
sys.path.append({str(Path(np.__file__).parents[1])!r})  # what ibfast itself needs, behind what the client needs
from dataclasses import asdict
from ibfast.contracts import Contract as Ours
print([asdict(Ours.of(contract)) for contract in (stock, option)])
"""


@pytest.mark.parametrize(
    ("client", "script"),
    [(OLD_CLIENT, IBAPI), (NEW_CLIENT, IBAPI), (ASYNC_CLIENT, IB_ASYNC)],
    ids=["old", "new", "async"],
)
def test_contracts_of_other_clients(client: str, script: str) -> None:
    python = python_with(client)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [python, "-c", script + SHOW], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    stock, option = ast.literal_eval(done.stdout)
    assert Contract(**stock) == Stock("AAPL")
    assert Contract(**option) == Option("AAPL", "20270115", 250.0, "C")
