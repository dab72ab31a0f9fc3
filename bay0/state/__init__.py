"""The state bridge: the only package that knows /persist.

`port.py` is PID 1's end and what the rest of the program calls; `worker.py` is the other process, and alone imports `db.py`, `schema.py`
(peewee, SQLite), `device.py` and `genesis.py`. Nothing is imported here, so that each end loads only its own half.
"""
