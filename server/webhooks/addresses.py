"""Where webhooks may be sent: to public addresses, unless the operator allows others.

A tenant chooses the URL, and the server makes the request from inside the operator's network. So the
rule is checked on the very address that a connection is made to (``_open_socket``): a name that
resolves to another address than before, or another way of writing 127.0.0.1, does not get around it.
``check_url`` refuses early what could never be sent.
"""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from server.errors import Invalid

Lookup = Callable[..., list[Any]]  # socket.getaddrinfo
NOT_PUBLIC = "The host is at an address that is not public: this server does not send there."
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # an IPv4 address in its last 32 bits
_UNICAST = ipaddress.IPv6Network("2000::/3")
# global to Python's ipaddress, or to some of its versions, and yet a way into private networks
_REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # the host of an Azure machine
        "192.88.99.0/24",  # 6to4 relays
        "240.0.0.0/4",  # reserved
        "2001::/23",  # Teredo and other special uses
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
# lookups of slow name servers must not use up the threads that other work waits for
_LOOKUP_THREADS = 8


class PrivateAddress(OSError):
    """A connection to an address that is not public was not made."""

    def __init__(self) -> None:
        super().__init__(NOT_PUBLIC)


def is_public(address: str) -> bool:
    """Whether an IP address, and the IPv4 address that it may stand for, is public."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        elif parsed not in _UNICAST:
            return False
    if parsed.is_multicast or not parsed.is_global:
        return False
    return not any(parsed in network for network in _REFUSED)


def check_url(text: str, *, private: bool) -> None:
    """Check a webhook's URL. ``private`` allows plain http and every address.

    Raises:
        Invalid: it is not a URL, or one that this server does not send to.
    """

    def refused(why: str) -> Invalid:
        return Invalid(f"url: {why}", param="url")

    if any(character <= " " or character == "\x7f" for character in text):
        raise refused("it must not have spaces or control characters.")
    try:
        url = URL(text)
        authority = urlsplit(text).netloc  # yarl forgets an empty user
        host, scheme = (url.raw_host or "").rstrip("."), url.scheme
    except ValueError as exc:
        raise refused("this is not a URL.") from exc
    if scheme != "https" and not (private and scheme == "http"):
        raise refused("it must begin with https://")
    if not host:
        raise refused("it has no host.")
    if "@" in authority or url.raw_user is not None or url.raw_password is not None:
        raise refused("it must not have a user or a password: signatures tell who sends.")
    if url.raw_fragment:
        raise refused("it must not have a fragment ('#...').")
    if not private and _is_plainly_private(host):
        raise refused("the host is not public, and this server only sends to public addresses.")


@asynccontextmanager
async def connections(*, private: bool, lookup: Lookup) -> AsyncIterator[aiohttp.BaseConnector]:
    """A connector for aiohttp: one connection for each request, to allowed addresses alone."""
    resolver = _Resolver(lookup)
    try:
        async with aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,
            force_close=True,
            limit=0,
            socket_factory=partial(_open_socket, private=private),
        ) as connector:
            yield connector
    finally:
        await resolver.close()


class _Resolver(AbstractResolver):
    """Resolves names on its own threads."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name."""
        asked = partial(self._lookup, host, port, family=family, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, asked)
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """End the threads as soon as their lookups have ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _open_socket(found: aiohttp.AddrInfoType, *, private: bool) -> socket.socket:
    """A socket for the address that is connected to next.

    Raises:
        PrivateAddress: the address is not public.
    """
    family, kind, protocol, _, address = found
    if not private and not is_public(str(address[0])):
        raise PrivateAddress
    opened = socket.socket(family, kind, protocol)
    opened.setblocking(False)
    return opened


def _is_plainly_private(host: str) -> bool:
    """Whether a host is private by its name or address alone, without a lookup."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not is_public(host)
    except ValueError:
        pass
    try:  # 2130706433, 0x7f.1, 127.1: not addresses to Python, but to the system's resolver
        return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
    except (OSError, ValueError):
        return False
