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

from agent.errors import EngineError
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.whisper.repetition import count_before_loop, has_loop
from plugins.stt.whisper.word import DecodedWord

__all__ = ["WhisperDecoder", "geometric_mean"]

FULL_WINDOW_S = 30.0
FINAL_PADDING_S = 8.0
PARTIAL_PADDING_S = 2.0
PARTIAL_SHORTEST_S = 6.0  # shorter input makes the decoder repeat itself, and costs hardly less
PARTIAL_BEAM_SIZE = 1  # a partial is soon replaced
TOKENS_PER_S = 8  # fast speech has seven
TOKENS_AT_LEAST = 12  # one short word may be spelled in many tokens
WORD_AT_LEAST_S = 0.04  # two steps of the alignment
CONTEXT_TOKENS = 64  # a sentence or two before the window

# Both together mean that nobody spoke (Radford et al. 2022, "Robust Speech Recognition via
# Large-Scale Weak Supervision", section 4.5).
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOG_PROBABILITY = -0.5

_STEP_SAMPLES = 320  # one step of the encoder is two frames of the spectrogram, 20 ms
# Languages written without spaces between words; their tokenizer splits at every character.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


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
                f'stt.whisper.model: the one in "{folder}" cannot be loaded ({error}); '
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
            tokenizer,
            encoded,
            context=context_tokens[-CONTEXT_TOKENS:],
            prefix=prefix_tokens,
            beam_size=PARTIAL_BEAM_SIZE,
            limit=_token_limit(samples),
        )
        if not hypothesis.is_speech:
            return ()
        tokens = hypothesis.tokens
        if prefix:
            # The last confirmed word is fixed: nothing may be appended to it any more.
            tokens = _from_word_start(tokenizer, tokens)
        words = self._align(tokenizer, encoded, prefix_tokens + tokens, samples)
        # A word that is placed at the very end of the audio was made up to complete the sentence.
        heard_s = _duration_s(samples) - WORD_AT_LEAST_S
        heard = [word for word in words if word.start_s < heard_s]
        end = count_before_loop([word.text for word in heard])
        return tuple(heard[_count_words(words, len(prefix_tokens)) : end])

    def decode_final(self, samples: Samples, *, language: str | None = None) -> tuple[DecodedWord, ...]:
        """Decode a whole utterance.

        Args:
            samples: int16 of shape (samples,) at 16 kHz, at most 30 s.
            language: ISO 639-1 code, if not the decoder's own.

        Returns:
            The words, with times in seconds since the first of `samples`; none where nobody spoke.

        Raises:
            EngineError: the model does not know the language.
        """
        tokenizer = self._tokenizer(language or self._language)
        for input_s in (_duration_s(samples) + FINAL_PADDING_S, FULL_WINDOW_S):
            encoded = self._encode(samples, input_s)
            hypothesis = self._generate(
                tokenizer, encoded, beam_size=self._beam_size, limit=_token_limit(samples)
            )
            if not hypothesis.is_speech:
                return ()
            words = self._align(tokenizer, encoded, hypothesis.tokens, samples)
            texts = [word.text for word in words]
            if not hypothesis.hit_limit and not has_loop(texts):
                return words
        return words[: count_before_loop(texts)]

    def _tokenizer(self, language: str) -> Tokenizer:
        if language not in self._tokenizers:
            known: list[str] = self._model.supported_languages
            if language not in known:
                raise EngineError(
                    f'stt.language "{language}" is unknown to the model in "{self._folder}"; '
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
        tokenizer: Tokenizer,
        encoded: ctranslate2.StorageView,
        *,
        beam_size: int,
        limit: int,
        context: Sequence[int] = (),
        prefix: Sequence[int] = (),
    ) -> _Hypothesis:
        """Decode `limit` tokens at most, `prefix` among them; return those after it."""
        prompt = self._model.get_prompt(tokenizer, list(context), without_timestamps=True)
        limit = min(limit, self._model.max_length // 2)
        [result] = self._model.model.generate(
            encoded,
            [[*prompt, *prefix]],
            beam_size=beam_size,
            # CTranslate2 allows half of this, less where a long prompt leaves less.
            max_length=max(2 * limit, len(prompt) + limit),
            return_scores=True,
            return_no_speech_prob=True,
        )
        [tokens], [score] = result.sequences_ids, result.scores
        return _Hypothesis(
            tokens=tokens[len(prefix) :],
            # The score counts the token that ends the text, but does not divide by it.
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
        [parts] = self._model.find_alignment(tokenizer, [tokens], encoded, frames)
        words: list[DecodedWord] = []
        for part in parts:
            # The tokenizer takes punctuation marks for words, the one in "4%" as well.
            if words and not _begins_word(tokenizer, part["word"]):
                before = words.pop()
                confidences = [before.confidence, float(part["probability"])]
                word = DecodedWord(
                    text=before.text + part["word"],
                    start_s=before.start_s,
                    end_s=float(part["end"]),
                    confidence=geometric_mean(confidences),
                    tokens=(*before.tokens, *part["tokens"]),
                )
            else:
                word = DecodedWord(
                    text=part["word"],
                    start_s=float(part["start"]),
                    end_s=float(part["end"]),
                    confidence=float(part["probability"]),
                    tokens=tuple(part["tokens"]),
                )
            words.append(word)
        # Where nothing is said the model likes to write "...".
        return tuple(words) if any(_has_letter(word.text) for word in words) else ()


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


def _begins_word(tokenizer: Tokenizer, text: str) -> bool:
    if tokenizer.language_code in _UNSPACED:
        return _has_letter(text)
    return text.startswith(" ")


def _has_letter(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _from_word_start(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """Drop leading tokens that would extend the word before them, such as a comma."""
    texts, parts = tokenizer.split_to_word_tokens(tokens)
    for index, text in enumerate(texts):
        if _begins_word(tokenizer, text):
            return [token for part in parts[index:] for token in part]
    return []


def _count_words(words: Sequence[DecodedWord], tokens: int) -> int:
    """Return how many leading words the first `tokens` tokens spell."""
    ends = itertools.accumulate(len(word.tokens) for word in words)
    return sum(end <= tokens for end in ends)
