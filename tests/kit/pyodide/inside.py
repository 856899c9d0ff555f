"""What is run within pyodide: see run.mjs beside it."""

import glob
import importlib
import os
import pkgutil
import sys
import warnings

#: Needs a package that is not here, or a system call that WebAssembly lacks.
LEFT_OUT = (
    *("web.app", "web.auth", "web.listing", "web.resting", "web.server", "web.streams"),
    *("testing.certificates", "cli.serve", "otel"),
)


def main():
    for wheel in glob.glob("/wheels/*.whl"):
        sys.path.insert(0, wheel)
    sys.path.insert(0, "/checkout")
    sys.dont_write_bytecode = True
    os.chdir("/checkout")
    warnings.simplefilter("error")
    import agentstream

    count = 0
    for module in pkgutil.walk_packages(agentstream.__path__, "agentstream."):
        name = module.name.partition(".")[2]
        if name.startswith(LEFT_OUT) or name.endswith("__main__"):
            continue
        importlib.import_module(module.name)
        count += 1
    print("Python %d.%d: %d modules imported without a warning" % (*sys.version_info[:2], count))
    return 0
