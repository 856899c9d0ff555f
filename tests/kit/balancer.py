"""A load balancer of TCP connections, for web workers that come and go."""

from __future__ import annotations

import contextlib
import socket
from typing import Iterable, List

from agentstream.testing import TCPProxy


class Balancer(TCPProxy):
    """Each new connection goes to the first of the ports at which somebody listens.

    Attributes:
        ports: where to go, in order; may be replaced at any time.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        self.ports: List[int] = list(ports)
        super().__init__(self.ports[0])
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def upstream(self) -> int:
        """The port to which a connection goes now."""
        for port in self.ports:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
                return port
        return self.ports[0]

    @upstream.setter
    def upstream(self, port: int) -> None:
        pass
