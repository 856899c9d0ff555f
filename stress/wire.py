"""A network of namespaces on one machine, whose packets come late or get lost: needs root.

Each host is a namespace of its own (`ip netns`), with one interface, a TUN device.  This process
carries its packets to the others: after a delay, and not all of them.  So TCP has what it has on
a bad line, retransmissions and all, also where the kernel has no netem.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import selectors
import shutil
import socket
import struct
import subprocess
import threading
import time
from typing import Any, Dict, List, Set, Tuple

__all__ = ["Host", "Network", "lacking"]

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_NET = "10.77.7"
_MOST_PACKET = 65536


def lacking() -> str:
    """What this machine lacks for a network; "" for nothing."""
    if os.geteuid():
        return "root"
    if shutil.which("ip") is None:
        return "the program ip (iproute2)"
    return "" if os.path.exists("/dev/net/tun") else "/dev/net/tun"


class Host:
    """One host: a namespace, and the processes in it.

    Attributes:
        address: of its interface.
    """

    def __init__(self, name: str, number: int) -> None:
        self.address = f"{_NET}.{number}"
        self._name = f"agentstream-{os.getpid()}-{name}"
        self._processes: List[subprocess.Popen[str]] = []
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        try:
            device = f"as{os.getpid()}n{number}"
            wanted = struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self.tun, _TUNSETIFF, wanted.ljust(40, b"\0"))
            _ip("netns", "add", self._name)
            _ip("link", "set", device, "netns", self._name)
            _ip("-n", self._name, "addr", "add", f"{self.address}/24", "dev", device)
            for each in (device, "lo"):
                _ip("-n", self._name, "link", "set", each, "up")
        except BaseException:
            self.close()
            raise

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program there; it is killed with the host."""
        command = ["ip", "netns", "exec", self._name, *words]
        process = subprocess.Popen(command, text=True, start_new_session=True, **options)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """Kill what runs there, and take the namespace away."""
        for process in self._processes:
            kill(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        os.close(self.tun)
        subprocess.run(["ip", "netns", "del", self._name], check=False, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[str]) -> None:
    """As kill -9 does, with all it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(10)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class Network:
    """Hosts, and the line between them; a context manager that leaves nothing behind.

    Args:
        names: of the hosts.
        delay: seconds that a packet takes, each way.
        loss: the share of packets that get lost.

    Attributes:
        hosts: by their names.
        carried, lost: packets so far.
    """

    def __init__(self, *names: str, delay: float, loss: float) -> None:
        self.hosts: Dict[str, Host] = {}
        self.carried = self.lost = 0
        self._delay, self._loss = delay, loss
        self._cut: Set[bytes] = set()
        self._ended = threading.Event()
        self._names = names
        self._thread = threading.Thread(target=self._carry, name="wire")

    def cut(self, name: str) -> None:
        """Nothing reaches that host, or leaves it; nobody is told."""
        self._cut.add(socket.inet_aton(self.hosts[name].address))

    def heal(self, name: str) -> None:
        """The host is back."""
        self._cut.discard(socket.inet_aton(self.hosts[name].address))

    def __enter__(self) -> Network:
        try:
            for number, name in enumerate(self._names, 1):
                self.hosts[name] = Host(name, number)
            self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        for host in self.hosts.values():
            host.close()

    def _carry(self) -> None:
        """Take each packet, and hand it over when it is due."""
        tuns = {socket.inet_aton(host.address): host.tun for host in self.hosts.values()}
        on_the_way: List[Tuple[float, int, bytes, bytes]] = []
        order = itertools.count()
        with selectors.DefaultSelector() as selector:
            for address, tun in tuns.items():
                selector.register(tun, selectors.EVENT_READ, address)
            while not self._ended.is_set():
                left = on_the_way[0][0] - time.monotonic() if on_the_way else 0.1
                for key, _ in selector.select(max(0.0, min(left, 0.1))):
                    for packet in _packets(key.fd):
                        if key.data in self._cut or random.random() < self._loss:
                            self.lost += 1
                            continue
                        due = time.monotonic() + self._delay
                        heapq.heappush(on_the_way, (due, next(order), packet[16:20], packet))
                while on_the_way and on_the_way[0][0] <= time.monotonic():
                    _, _, to, packet = heapq.heappop(on_the_way)
                    if to in tuns and to not in self._cut:
                        self.carried += 1
                        with contextlib.suppress(BlockingIOError):  # its queue is full: it is lost
                            os.write(tuns[to], packet)


def _packets(tun: int) -> List[bytes]:
    """The IPv4 packets that a device has for us."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while len(found) < 1000:
            found.append(os.read(tun, _MOST_PACKET))
    return [packet for packet in found if packet[0] >> 4 == 4]
