"""The state bridge: the only package that knows /persist, and what the rest of the program sees of it.

`StatePort` (port.py) is PID 1's end; `worker.py` is the other process. PID 1 imports nothing here that imports peewee.
"""

from bay0.state.link import Answer
from bay0.state.port import StatePort

__all__ = ["Answer", "StatePort"]
