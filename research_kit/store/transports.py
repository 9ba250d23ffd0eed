"""The way to the running store for httpx.

Owns transports that reach the store as `reaching` does; makes no clients. Invariant: each request looks at
the socket, or asks for the proof, anew, so a client that outlives its server sends nothing to a stranger.
"""

from __future__ import annotations

import asyncio
import http.client
import socket

import httpx

from research_kit.store.reaching import SOCKET_BUFFER_BYTES, StoreWay, check_socket, connect

__all__ = ["async_transport_to", "transport_to"]

_DEFAULT_TIMEOUT_S = 30.0
_OPTIONS = [(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)]
# What belongs to a connection, which the proven one has of its own.
_HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding"})


def transport_to(way: StoreWay) -> httpx.BaseTransport:
    """Return the transport of a client of the store."""
    return _ProvenTransport(way) if way.socket_path is None else _SocketTransport(way)


def async_transport_to(way: StoreWay) -> httpx.AsyncBaseTransport:
    """Return the transport of an asynchronous client of the store."""
    return _AsyncProvenTransport(way) if way.socket_path is None else _AsyncSocketTransport(way)


def _check(way: StoreWay) -> None:
    try:
        if way.socket_path is not None:
            check_socket(way.socket_path)
    except OSError as error:
        raise httpx.ConnectError(f"the embedded store is not reached: {error}") from error


class _SocketTransport(httpx.HTTPTransport):
    def __init__(self, way: StoreWay) -> None:
        # No certificates are loaded: nothing is encrypted inside one machine.
        super().__init__(uds=str(way.socket_path), verify=False, socket_options=_OPTIONS)
        self._way = way

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        _check(self._way)
        return super().handle_request(request)


class _AsyncSocketTransport(httpx.AsyncHTTPTransport):
    def __init__(self, way: StoreWay) -> None:
        super().__init__(uds=str(way.socket_path), verify=False)
        self._way = way

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        _check(self._way)
        return await super().handle_async_request(request)


class _ProvenTransport(httpx.BaseTransport):
    """Opens a connection per request, which is cheap on one machine."""

    def __init__(self, way: StoreWay) -> None:
        self._way = way

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeout_s = request.extensions.get("timeout", {}).get("read") or _DEFAULT_TIMEOUT_S
        body = request.read()
        headers = {name: value for name, value in request.headers.multi_items() if name not in _HOP_HEADERS}
        target = request.url.raw_path.decode("ascii")
        try:
            connection = connect(self._way, timeout_s=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise httpx.ConnectError(f"the embedded store is not reached: {error}") from error
        try:
            connection.request(request.method, target, body=body or None, headers=headers)
            answer = connection.getresponse()
            content = httpx.ByteStream(answer.read())
            return httpx.Response(answer.status, headers=answer.getheaders(), stream=content)
        except (OSError, http.client.HTTPException) as error:
            raise httpx.ReadError(f"the embedded store broke off: {error}") from error
        finally:
            connection.close()


class _AsyncProvenTransport(httpx.AsyncBaseTransport):
    def __init__(self, way: StoreWay) -> None:
        self._transport = _ProvenTransport(way)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await asyncio.to_thread(self._transport.handle_request, request)
