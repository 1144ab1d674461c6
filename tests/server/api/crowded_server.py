"""A server of its own process, which may open only so many files; run by ``test_http.py``."""

import resource
import socket
import sys
from pathlib import Path

import uvicorn
import uvloop

from server.api.protocol import BoundedProtocol, BoundedServer
from server.app import create_app
from server.settings import Settings


def main() -> None:
    """``HOME LIMIT``: prints the port when it listens."""
    home, limit = Path(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    app = create_app(Settings(home=home, engine="fake", base="tiny-base"))
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_config=None, access_log=False, http=BoundedProtocol)
    uvloop.run(BoundedServer(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()
