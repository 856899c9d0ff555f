"""The client's side of a SOCKS proxy, over a socket that is connected to it already.

SOCKS 4 and 4a (openssh.com/txt/socks4.protocol, socks4a.protocol), SOCKS 5 (RFC 1928) with a user
and a password (RFC 1929).  PySocks, which requests needs to have such proxies at all, opens its
sockets itself, where no other thread could shut them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any, Callable, List, Mapping, Optional, Tuple

__all__ = ["Resolve", "SocksError", "proxy_of", "request_connection"]

#: From a host's name and a port to its addresses, as `socket.getaddrinfo` gives them.
Resolve = Callable[[str, int], List[Tuple[Any, ...]]]

_PORT = 1080
_VERSION_4 = 1  # as PySocks numbers them
#: Of SOCKS 5, section 6: what a proxy says, and whether that may pass.
_REFUSALS = {
    1: ("general failure", True),
    2: ("its rules do not allow it", False),
    3: ("network unreachable", True),
    4: ("host unreachable", True),
    5: ("connection refused", True),
    6: ("it took too long", True),
    7: ("it does not make connections", False),
    8: ("it does not take this kind of address", False),
}
_GRANTED_4, _FAILED_4 = 90, 91


class SocksError(OSError):
    """The proxy does not connect; its text says why.

    Attributes:
        retryable: true if another try may pass.
    """

    def __init__(self, reason: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.retryable = retryable


def proxy_of(options: Mapping[str, Any]) -> Tuple[str, int]:
    """The proxy's host and port; `options` as urllib3 hands them to a connection."""
    return options["proxy_host"].strip("[]"), options["proxy_port"] or _PORT


def request_connection(
    sock: socket.socket, options: Mapping[str, Any], host: str, port: int, resolve: Resolve
) -> None:
    """Have the proxy connect to a host; from then on `sock` leads there.

    Args:
        sock: connected to the proxy, and blocking.
        options: as urllib3 hands them to a connection: socks_version, username, password, and
            rdns, which is true if the proxy is to look the host up.
        host, port: where to.
        resolve: looks the host up if the proxy is not to.

    Raises:
        SocksError: the proxy does not connect.
        OSError: the host cannot be looked up.
    """
    address = _address(host)
    if address is None and not options["rdns"]:
        family = socket.AF_INET if options["socks_version"] == _VERSION_4 else 0
        found = [item for item in resolve(host, port) if family in (0, item[0])]
        if not found:
            raise SocksError("SOCKS 4 takes no IPv6 address")
        address = ipaddress.ip_address(found[0][4][0].partition("%")[0])
    try:
        if options["socks_version"] == _VERSION_4:
            _connect_4(sock, options, host, port, address)
        else:
            _greet_5(sock, options)
            _connect_5(sock, host, port, address)
    except SocksError:
        raise
    except OSError as error:  # as such urllib3 would take a reset for an answer cut off
        raise SocksError(f"it hung up ({error.strerror})", retryable=True) from error


def _address(host: str) -> Any:
    """The IP address that `host` is; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _connect_4(
    sock: socket.socket, options: Mapping[str, Any], host: str, port: int, address: Any
) -> None:
    if address is not None and address.version != 4:
        raise SocksError("SOCKS 4 takes no IPv6 address")
    user = (options["username"] or "").encode()
    # 4a: an address that nobody has, and the name behind the user.
    place = b"\0\0\0\1" if address is None else address.packed
    name = b"" if address is not None else _name(host) + b"\0"
    sock.sendall(struct.pack(">BBH", 4, 1, port) + place + user + b"\0" + name)
    version, status = _read(sock, 8)[:2]
    if version != 0:
        raise SocksError("it does not speak SOCKS 4")
    if status != _GRANTED_4:
        raise SocksError(f"refused ({status})", retryable=status == _FAILED_4)


def _greet_5(sock: socket.socket, options: Mapping[str, Any]) -> None:
    """Agree on who is asking."""
    user, password = ((options[name] or "").encode() for name in ("username", "password"))
    if max(len(user), len(password)) > 255:
        raise SocksError("its user and password may have 255 bytes each")
    sock.sendall(b"\5\2\0\2" if user else b"\5\1\0")
    version, method = _read(sock, 2)
    if version != 5:
        raise SocksError("it does not speak SOCKS 5")
    if method == 2 and user:
        sock.sendall(b"\1%c%s%c%s" % (len(user), user, len(password), password))
        if _read(sock, 2)[1] != 0:
            raise SocksError("it refuses this user and password")
    elif method != 0:
        raise SocksError("it wants another user and password" if user else "it wants a user")


def _connect_5(sock: socket.socket, host: str, port: int, address: Any) -> None:
    if address is None:
        name = _name(host)
        place = b"\3%c%s" % (len(name), name)
    else:
        place = (b"\1" if address.version == 4 else b"\4") + address.packed
    sock.sendall(b"\5\1\0" + place + struct.pack(">H", port))
    version, status, _, kind = _read(sock, 4)
    if version != 5:
        raise SocksError("it does not speak SOCKS 5")
    if status != 0:
        reason, retryable = _REFUSALS.get(status, (f"refused ({status})", False))
        raise SocksError(reason, retryable=retryable)
    lengths = {1: 4, 4: 16}
    length: Optional[int] = _read(sock, 1)[0] if kind == 3 else lengths.get(kind)
    if length is None:
        raise SocksError("it does not speak SOCKS 5")
    _read(sock, length + 2)  # where it connects from, which is nobody's business


def _name(host: str) -> bytes:
    """A host's name as it goes over the wire."""
    try:
        name = host.encode("ascii")
    except UnicodeEncodeError:
        name = host.encode("idna")
    if len(name) > 255:
        raise SocksError("the host's name is too long")
    return name


def _read(sock: socket.socket, count: int) -> bytes:
    """Just so many bytes: what follows belongs to the server."""
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise SocksError("it hung up", retryable=True)
        data += more
    return data
