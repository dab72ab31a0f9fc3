"""Usage: late_modules.py PATH. Writes which modules each late part of the spine takes, for bay0/loading/late.py.

The parts are those that bay0/init/spine.py makes by `Late("module:Class", ...)`. Each is imported in a fresh interpreter on top
of what PID 1 has loaded by then; the modules are listed in the order in which they were done, so dependencies come first.
"""

import ast
import json
import os
import subprocess
import sys

import bay0

ORDER = """
import importlib, json, sys
from importlib import machinery
from bay0.loading import lazy
for name in lazy.UNUSED_BY_PID1:
    lazy.load(name)
import bay0.init
done = []
def noted(loader):
    real = loader.exec_module
    def exec_module(self, module):
        real(self, module)
        done.append(module.__name__)
    loader.exec_module = exec_module
for loader in (machinery.SourceFileLoader, machinery.SourcelessFileLoader, machinery.ExtensionFileLoader):
    noted(loader)
importlib.import_module(sys.argv[1])
print(json.dumps(done))
"""


def targets() -> list[str]:
    """Return the targets that spine.py names."""
    path = os.path.join(os.path.dirname(bay0.__file__), "init", "spine.py")
    with open(path, encoding="utf-8") as file:
        calls = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Late"]
    return sorted(str(each.value) for each in named if isinstance(each, ast.Constant))


def modules(target: str) -> list[str]:
    """Return what importing it loads, in the order in which it is done."""
    name = f"bay0.{target.partition(':')[0]}"
    made = subprocess.run([sys.executable, "-c", ORDER, name], stdout=subprocess.PIPE, check=True)
    found: list[str] = json.loads(made.stdout)
    return found


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump({target: modules(target) for target in targets()}, out, indent=1)
