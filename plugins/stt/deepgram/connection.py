"""A WebSocket to the service, on aiohttp.

The SDK's own is built on `websockets.legacy`, which waits up to 30 s for the goodbye of a server that is
gone, and it drops the headers of a refusal, Retry-After among them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
from livekit.agents import APIConnectionError, APITimeoutError

from plugins.stt.deepgram.errors import refused

__all__ = ["ClosedError", "Connection", "connected"]

GOODBYE_S = 0.5  # what the service had to say has been said by then, or it is gone
HEARTBEAT_S = 20.0  # a connection that is silently dead between two turns is noticed after half as much again


class ClosedError(Exception):
    """The connection is over.

    Attributes:
        code: The code of the service's close frame; None where there was none.
        reason: What it says there.
    """

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code} {reason}".strip() if code is not None else reason)
        self.code = code
        self.reason = reason

    @property
    def is_normal(self) -> bool:
        return self.code == aiohttp.WSCloseCode.OK


class Connection:
    """What the SDK's `AsyncV1SocketClient` needs of a WebSocket."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, data: str | bytes) -> None:
        """Send a text or binary message.

        Raises:
            ClosedError: The connection is over; `recv` tells why.
        """
        try:
            if isinstance(data, bytes):
                await self._websocket.send_bytes(data)
            else:
                await self._websocket.send_str(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise ClosedError(None, type(error).__name__) from error

    async def recv(self) -> str | bytes:
        """Wait for the next message.

        Raises:
            ClosedError: The connection is over.
        """
        message = await self._websocket.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                data: str | bytes = message.data
                return data
            case aiohttp.WSMsgType.CLOSE:
                raise ClosedError(message.data, message.extra or "")
            case aiohttp.WSMsgType.ERROR:
                raise ClosedError(None, type(message.data).__name__)
            case _:
                # aiohttp gives a connection that breaks off the code of a normal end.
                raise ClosedError(None, "without a goodbye")


@asynccontextmanager
async def connected(
    url: str, *, query: Sequence[tuple[str, str]], api_key: str, timeout_s: float
) -> AsyncIterator[Connection]:
    """A connection that is closed at the end, within half a second.

    Args:
        url: Where the service is, http or https.
        query: The parameters of the request.
        api_key: Who we are.
        timeout_s: How long the service may take to accept it.

    Raises:
        APIConnectionError: The service cannot be reached.
        APITimeoutError: It did not answer in time.
        APIStatusError: It refused.
    """
    async with aiohttp.ClientSession() as session:
        websocket = await _connect(session, url, query, api_key, timeout_s)
        try:
            yield Connection(websocket)
        finally:
            await websocket.close()


async def _connect(
    session: aiohttp.ClientSession, url: str, query: Sequence[tuple[str, str]], api_key: str, timeout_s: float
) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(timeout_s):
            return await session.ws_connect(
                url,
                params=query,
                headers={"Authorization": f"Token {api_key}"},
                heartbeat=HEARTBEAT_S,
                timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE_S),
            )
    except TimeoutError as error:
        raise APITimeoutError(f"deepgram did not accept the stream within {timeout_s:g} s") from error
    except aiohttp.WSServerHandshakeError as error:
        headers: Mapping[str, str] = error.headers or {}
        # `from None`: aiohttp's error holds the request's headers, with the key.
        raise refused("the stream", error.status, headers, detail=headers.get("dg-error")) from None
    except (aiohttp.ClientError, OSError) as error:
        raise APIConnectionError(f"deepgram cannot be reached: {type(error).__name__}") from error
