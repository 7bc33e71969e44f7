"""Decoding with Whisper: samples in, words with times and confidence out. Synchronous.

Whisper was trained on windows of 30 s, and the usual way is to pad everything to that length. Its
encoder takes shorter input as well, and its cost grows with the length, so here the padding is a
few seconds: enough for the model to notice that the speech is over. Without it, and now and then
with it, the decoder falls into a loop; a final is then decoded again in the full window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import merge_punctuations

from agent.errors import EngineError
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.decoded_word import DecodedWord
from plugins.stt.repetition import has_loop, without_loop

__all__ = ["Transcript", "WhisperDecoder"]

FULL_WINDOW_S = 30.0
FINAL_PADDING_S = 8.0
PARTIAL_PADDING_S = 2.0
PARTIAL_SHORTEST_S = 6.0  # shorter input makes the decoder repeat itself, and costs hardly less
PARTIAL_BEAM_SIZE = 1  # a partial is soon replaced
TOKENS_PER_S = 8  # fast speech has seven
TOKENS_AT_LEAST = 12  # one short word may be spelled in many tokens
CONTEXT_TOKENS = 64  # a sentence or two before the window

# Both together mean that nobody spoke (Radford et al. 2022, "Robust Speech Recognition via
# Large-Scale Weak Supervision", section 4.5).
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOG_PROBABILITY = -1.0

_STEP_SAMPLES = 320  # one step of the encoder is two frames of the spectrogram, 20 ms
_OPENING_MARKS = "\"'“¿([{-"
_CLOSING_MARKS = "\"'.。,,!!??::”)]}、"


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of a stretch of audio; none where nothing was recognised."""

    words: tuple[DecodedWord, ...]

    @property
    def text(self) -> str:
        """The words as one string."""
        return "".join(word.text for word in self.words).strip()

    @property
    def confidence(self) -> float:
        """Geometric mean of the words' confidences, 0 to 1."""
        return geometric_mean([word.confidence for word in self.words])


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    tokens: list[int]
    log_probability: float
    no_speech_probability: float
    hit_limit: bool

    @property
    def is_speech(self) -> bool:
        return (
            self.no_speech_probability <= NO_SPEECH_PROBABILITY
            or self.log_probability >= NO_SPEECH_LOG_PROBABILITY
        )


class WhisperDecoder:
    """A loaded model. Not safe for two threads at once."""

    def __init__(self, folder: Path, *, language: str, threads: int, beam_size: int) -> None:
        """Load the model.

        Args:
            folder: of a Whisper model in CTranslate2's format, with its tokenizer.
            language: ISO 639-1 code of what is spoken, where a decode names no other.
            threads: processor threads of one decode.
            beam_size: hypotheses kept when decoding a final.

        Raises:
            EngineError: the model cannot be loaded, or does not know the language.
        """
        try:
            self._model = WhisperModel(
                str(folder),
                device="cpu",
                compute_type="int8",
                cpu_threads=threads,
                num_workers=1,
                local_files_only=True,
            )
        except (RuntimeError, ValueError) as error:
            raise EngineError(
                f'stt: the model in "{folder}" cannot be loaded ({error}); '
                "give the folder of a CTranslate2 Whisper model"
            ) from error
        self._folder = folder
        self._language = language
        self._beam_size = beam_size
        self._tokenizers: dict[str, Tokenizer] = {}
        self._tokenizer(language)

    def decode_partial(
        self,
        samples: Samples,
        *,
        prefix: Sequence[DecodedWord] = (),
        context: Sequence[DecodedWord] = (),
        language: str | None = None,
    ) -> tuple[DecodedWord, ...]:
        """Decode speech that is still going on.

        Args:
            samples: int16 of shape (samples,) at 16 kHz, at most 28 s.
            prefix: confirmed words with which the audio begins; the hypothesis continues them.
            context: confirmed words spoken before the audio.
            language: ISO 639-1 code, if not the decoder's own.

        Returns:
            The words after `prefix`, with times in seconds since the first of `samples`.

        Raises:
            EngineError: the model does not know the language.
        """
        tokenizer = self._tokenizer(language or self._language)
        prefix_tokens = [token for word in prefix for token in word.tokens]
        context_tokens = [token for word in context for token in word.tokens]
        input_s = max(_duration_s(samples) + PARTIAL_PADDING_S, PARTIAL_SHORTEST_S)
        encoded = self._encode(samples, input_s)
        hypothesis = self._generate(
            encoded,
            self._model.get_prompt(tokenizer, context_tokens[-CONTEXT_TOKENS:], without_timestamps=True)
            + prefix_tokens,
            beam_size=PARTIAL_BEAM_SIZE,
            limit=_token_limit(samples) - len(prefix_tokens),
            tokenizer=tokenizer,
        )
        if not hypothesis.is_speech:
            return ()
        tokens = hypothesis.tokens
        if prefix and prefix[-1].text.startswith(" "):
            # The last confirmed word is fixed: nothing may be appended to it any more.
            tokens = _from_word_start(tokenizer, tokens)
        words = self._align(tokenizer, encoded, prefix_tokens + tokens, samples)
        end = without_loop([word.text for word in words])
        return words[_count_words(words, len(prefix_tokens)) : end]

    def decode_final(self, samples: Samples, *, language: str | None = None) -> Transcript:
        """Decode a whole utterance.

        Args:
            samples: int16 of shape (samples,) at 16 kHz, at most 30 s.
            language: ISO 639-1 code, if not the decoder's own.

        Returns:
            The words, with times in seconds since the first of `samples`.

        Raises:
            EngineError: the model does not know the language.
        """
        tokenizer = self._tokenizer(language or self._language)
        for input_s in (_duration_s(samples) + FINAL_PADDING_S, FULL_WINDOW_S):
            encoded = self._encode(samples, input_s)
            hypothesis = self._generate(
                encoded,
                self._model.get_prompt(tokenizer, [], without_timestamps=True),
                beam_size=self._beam_size,
                limit=_token_limit(samples),
                tokenizer=tokenizer,
            )
            if not hypothesis.is_speech:
                return Transcript(words=())
            words = self._align(tokenizer, encoded, hypothesis.tokens, samples)
            texts = [word.text for word in words]
            if not hypothesis.hit_limit and not has_loop(texts):
                return Transcript(words)
        return Transcript(words[: without_loop(texts)])

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            known: list[str] = self._model.supported_languages
            if language not in known:
                raise EngineError(
                    f'stt: language "{language}" is unknown to the model in "{self._folder}"; '
                    f"known: {', '.join(known)}"
                )
            self._tokenizers[language] = Tokenizer(
                self._model.hf_tokenizer,
                self._model.model.is_multilingual,
                task="transcribe",
                language=language,
            )
        return self._tokenizers[language]

    def _encode(self, samples: Samples, input_s: float) -> ctranslate2.StorageView:
        """Encode the samples with silence after them, `input_s` in all (30 s at most)."""
        length = round(min(input_s, FULL_WINDOW_S) * SAMPLE_RATE_HZ)
        length -= length % _STEP_SAMPLES
        signal = np.zeros(length, np.float32)
        signal[: len(samples)] = samples[:length]
        features = self._model.feature_extractor(signal / 32768, padding=0)
        return self._model.encode(features)

    def _generate(
        self,
        encoded: ctranslate2.StorageView,
        prompt: list[int],
        *,
        beam_size: int,
        limit: int,
        tokenizer: Tokenizer,
    ) -> _Hypothesis:
        limit = max(1, min(limit, self._model.max_length - len(prompt)))
        [result] = self._model.model.generate(
            encoded,
            [prompt],
            beam_size=beam_size,
            max_length=len(prompt) + limit,
            return_scores=True,
            return_no_speech_prob=True,
        )
        [tokens], [score] = result.sequences_ids, result.scores
        return _Hypothesis(
            tokens=[token for token in tokens if token < tokenizer.eot],
            # The score is divided by the number of tokens without the one that ends the text.
            log_probability=score * len(tokens) / (len(tokens) + 1),
            no_speech_probability=result.no_speech_prob,
            hit_limit=len(tokens) >= limit,
        )

    def _align(
        self,
        tokenizer: Tokenizer,
        encoded: ctranslate2.StorageView,
        tokens: list[int],
        samples: Samples,
    ) -> tuple[DecodedWord, ...]:
        """Find the words' times by the attention of the decoder to the encoded audio."""
        if not tokens:
            return ()
        frames = len(samples) // self._model.feature_extractor.hop_length
        [words] = self._model.find_alignment(tokenizer, [tokens], encoded, frames)
        merge_punctuations(words, _OPENING_MARKS, _CLOSING_MARKS)
        return tuple(
            DecodedWord(
                text=word["word"],
                start_s=float(word["start"]),
                end_s=float(word["end"]),
                confidence=float(word["probability"]),
                tokens=tuple(word["tokens"]),
            )
            for word in words
            if word["word"].strip()
        )


def geometric_mean(probabilities: Sequence[float]) -> float:
    """Return the geometric mean, 0 for nothing."""
    if not probabilities:
        return 0.0
    logarithms = [math.log(max(probability, 1e-9)) for probability in probabilities]
    return math.exp(math.fsum(logarithms) / len(logarithms))


def _duration_s(samples: Samples) -> float:
    return len(samples) / SAMPLE_RATE_HZ


def _token_limit(samples: Samples) -> int:
    return TOKENS_AT_LEAST + int(TOKENS_PER_S * _duration_s(samples))


def _from_word_start(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """Drop leading tokens that would extend the word before them, such as a comma."""
    texts, parts = tokenizer.split_to_word_tokens(tokens)
    for index, text in enumerate(texts):
        if text.startswith(" "):
            return [token for part in parts[index:] for token in part]
    return []


def _count_words(words: Sequence[DecodedWord], tokens: int) -> int:
    """Return how many leading words the first `tokens` tokens spell."""
    ends = itertools.accumulate(len(word.tokens) for word in words)
    return sum(end <= tokens for end in ends)
