"""Ways to exploit and explore: pure functions of a view, one algorithm a file, each with its source.

A strategy is a frozen dataclass with `__call__`, or any function of that form (contract.py).
"""
