"""One account at one server: its requests over HTTP, its sessions over WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from socket import SHUT_RDWR
from typing import Literal

import aiohttp
import openai
from livekit import rtc
from livekit.agents import APIConnectionError

from plugins.stt.openai import errors
from plugins.stt.openai.hints import Hints
from plugins.stt.openai.transcript import Transcript, parse_transcript

__all__ = ["Service"]

HEARTBEAT_S = 20.0  # a connection that is gone is noticed between turns as well
CLOSING_S = 1.0  # for the service's good-bye; a lost one would have us wait for nothing
LONGEST_MESSAGE_BYTES = 2**20  # a turn's text is a few kilobytes


class Service:
    """OpenAI, or a server that speaks its API."""

    def __init__(self, *, api_key: str, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        # Servers on one's own machine want no key, but the client wants one, and would look for it elsewhere.
        self._client = openai.AsyncOpenAI(api_key=api_key or "unused", base_url=self._base_url, max_retries=0)

    async def transcribe(
        self,
        audio: rtc.AudioFrame,
        *,
        model: str,
        hints: Hints,
        has_word_times: bool,
        timeout_s: float,
    ) -> Transcript:
        """Have a whole recording transcribed.

        Args:
            audio: Of any rate and number of channels, at least 100 ms of it.
            model: As the service names it.
            hints: About what is spoken.
            has_word_times: Ask for the times of words.
            timeout_s: Without a sign of life from the service.

        Raises:
            APIError: There is no transcript.
        """
        granularities: list[Literal["word", "segment"]] = ["word"]
        try:
            response = await self._client.audio.transcriptions.with_raw_response.create(
                file=("turn.wav", audio.to_wav_bytes(), "audio/wav"),
                model=model,
                language=hints.language,
                prompt=hints.prompt or openai.omit,
                keywords=hints.keywords or openai.omit,
                response_format="verbose_json" if has_word_times else "json",
                timestamp_granularities=granularities if has_word_times else openai.omit,
                timeout=timeout_s,
            )
        except openai.OpenAIError as error:
            raise errors.of_request(error) from None
        try:
            return parse_transcript(response.http_response.text)
        except ValueError as error:
            raise APIConnectionError("openai: the answer is not a transcript") from error

    @asynccontextmanager
    async def realtime(self, *, timeout_s: float) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a connection to the Realtime API, for a session that only transcribes.

        Raises:
            APIError: It could not be opened.
        """
        async with aiohttp.ClientSession(trust_env=True) as http:
            try:
                async with asyncio.timeout(timeout_s):
                    socket = await http.ws_connect(
                        f"ws{self._base_url.removeprefix('http')}/realtime",
                        params={"intent": "transcription"},
                        headers=self._headers(),
                        heartbeat=HEARTBEAT_S,
                        timeout=aiohttp.ClientWSTimeout(ws_close=CLOSING_S),
                        max_msg_size=LONGEST_MESSAGE_BYTES,
                    )
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise errors.of_handshake(error) from None
            try:
                yield socket
            finally:
                await _close(socket)

    async def aclose(self) -> None:
        """Close what is open to the server. Idempotent."""
        await self._client.close()

    def _headers(self) -> dict[str, str]:
        headers = dict(self._client.auth_headers)
        # As the client does it for requests.
        if self._client.organization:
            headers["OpenAI-Organization"] = self._client.organization
        if self._client.project:
            headers["OpenAI-Project"] = self._client.project
        return headers


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    connection = socket.get_extra_info("socket")
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSING_S):
            await socket.close()
    # Closing keeps the connection until all that was written is taken; from a lost one nobody ever takes it.
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(SHUT_RDWR)
