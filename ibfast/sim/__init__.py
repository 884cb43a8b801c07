"""An embedded gateway that speaks the TWS protocol, for demos, tests and benchmarks."""
