"""A client for cloche, the daemon that runs code in microVM sandboxes.

    import cloche

    with cloche.Client().create(template="python") as sandbox:
        sandbox.put("/workspace/a.py", b"print(6 * 7)")
        result = sandbox.exec(["python3", "a.py"])
        print(result.exit_code, result.stdout)

Standard library only. A client may be shared by threads: each call has a connection of its own.

Calls that make something take an `idempotency_key`. A call that got no answer (code "unreachable")
may be made again with the same key: what was done is not done twice, its reply comes again.
"""
from ._wire import ClocheError, File, Matches, Result
from .client import DEFAULT_SOCKET, Client
from .process import Process
from .sandbox import Sandbox

__all__ = ["Client", "ClocheError", "File", "Matches", "Process", "Result", "Sandbox",
           "DEFAULT_SOCKET"]
__version__ = "0.1.0"
