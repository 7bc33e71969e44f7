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
from faster_whisper.feature_extractor import FeatureExtractor
from faster_whisper.tokenizer import Tokenizer
from numpy.typing import NDArray

from agent.errors import EngineError
from agent.values import SAMPLE_RATE_HZ, Samples
from plugins.stt.whisper.repetition import count_before_loop, has_loop
from plugins.stt.whisper.word import DecodedWord

__all__ = ["Continuation", "Decoded", "WhisperDecoder", "Windows", "geometric_mean", "padded_log_mel"]

FULL_WINDOW_S = 30.0
PARTIAL_BEAM_SIZE = 1  # a partial is soon replaced
TOKENS_PER_S = 8  # fast speech has seven
TOKENS_AT_LEAST = 12  # one short word may be spelled in many tokens
WORD_AT_LEAST_S = 0.04  # two steps of the alignment
CONTEXT_TOKENS = 64  # a sentence or two before the window

# Both together mean that the model doubts that anybody spoke (Radford et al. 2022, "Robust Speech
# Recognition via Large-Scale Weak Supervision", section 4.5).
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOG_PROBABILITY = -0.5

_LOG_MEL_OF_SILENCE = -10.0
_LOG_MEL_RANGE = 8.0
# Languages written without spaces between words; their tokenizer splits at every character.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


# What ISO 639 calls otherwise than Whisper does.
_WHISPER_CODES = {"nb": "no", "fil": "tl", "jv": "jw", "iw": "he"}


@dataclass(frozen=True, slots=True)
class Windows:
    """How long the encoder's input is: the audio with silence after it, 30 s at most.

    All in seconds. `partial_shortest_s` is the least for a partial: shorter input makes the decoder repeat
    itself, and costs hardly less.
    """

    final_padding_s: float = 8.0
    partial_padding_s: float = 2.0
    partial_shortest_s: float = 6.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A whole utterance. Where `is_sure` is false, the model doubts that anybody spoke at all."""

    words: tuple[DecodedWord, ...]
    is_sure: bool


@dataclass(frozen=True, slots=True)
class Continuation:
    """What follows the words that were given. Times are seconds since the first of the samples.

    `prefix` are the words that were given with times found anew; none where the times are rough.
    """

    words: tuple[DecodedWord, ...]
    prefix: tuple[DecodedWord, ...] = ()


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    tokens: list[int]
    log_probability: float
    no_speech_probability: float
    hit_limit: bool

    @property
    def is_sure(self) -> bool:
        return (
            self.no_speech_probability <= NO_SPEECH_PROBABILITY
            or self.log_probability >= NO_SPEECH_LOG_PROBABILITY
        )


class WhisperDecoder:
    """A loaded model. Not safe for two threads at once."""

    def __init__(
        self,
        folder: Path,
        *,
        language: str,
        threads: int,
        beam_size: int,
        windows: Windows = Windows(),
    ) -> None:
        """Load the model.

        Args:
            folder: of a Whisper model in CTranslate2's format, with its tokenizer.
            language: ISO 639-1 code of what is spoken, where a decode names no other.
            threads: processor threads of one decode.
            beam_size: hypotheses kept when decoding a final.
            windows: how long the encoder's input is.

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
        self._windows = windows
        self._tokenizers: dict[str, Tokenizer] = {}
        self._tokenizer(language)

    def decode_partial(
        self,
        samples: Samples,
        *,
        prefix: Sequence[DecodedWord] = (),
        context: Sequence[DecodedWord] = (),
        language: str | None = None,
        spoken_s: tuple[float, float] | None = None,
    ) -> Continuation:
        """Decode speech that is still going on.

        Args:
            samples: int16 of shape (samples,) at 16 kHz, at most 28 s.
            prefix: confirmed words with which the audio begins; the hypothesis continues them.
            context: confirmed words spoken before the audio.
            language: ISO 639-1 code, if not the decoder's own.
            spoken_s: from when to when the words after `prefix` were spoken, where rough times will do:
                they share it by length, and an eighth of the work is spared. Else their times, and those
                of `prefix`, are found in the audio.

        Raises:
            EngineError: the model does not know the language.
        """
        tokenizer = self._tokenizer(language or self._language)
        prefix_tokens = [token for word in prefix for token in word.tokens]
        context_tokens = [token for word in context for token in word.tokens]
        windows = self._windows
        input_s = max(_duration_s(samples) + windows.partial_padding_s, windows.partial_shortest_s)
        encoded = self._encode(samples, input_s)
        hypothesis = self._generate(
            tokenizer,
            encoded,
            context=context_tokens[-CONTEXT_TOKENS:],
            prefix=prefix_tokens,
            beam_size=PARTIAL_BEAM_SIZE,
            limit=_token_limit(samples),
        )
        if not hypothesis.is_sure:
            return Continuation(())
        tokens = hypothesis.tokens
        if prefix:
            # The last confirmed word is fixed: nothing may be appended to it any more.
            tokens = _from_word_start(tokenizer, tokens)
        if spoken_s is not None:
            words = _place_roughly(tokenizer, tokens, math.exp(hypothesis.log_probability), spoken_s)
            texts = [word.text for word in (*prefix, *words)]
            return Continuation(words[: max(0, count_before_loop(texts) - len(prefix))])
        words = self._align(tokenizer, encoded, prefix_tokens + tokens, samples)
        # A word that is placed at the very end of the audio was made up to complete the sentence.
        heard_s = _duration_s(samples) - WORD_AT_LEAST_S
        heard = [word for word in words if word.start_s < heard_s]
        end = count_before_loop([word.text for word in heard])
        known = _count_words(words, len(prefix_tokens))
        return Continuation(tuple(heard[known:end]), words[:known] if known == len(prefix) else ())

    def decode_final(self, samples: Samples, *, language: str | None = None) -> Decoded:
        """Decode a whole utterance.

        Args:
            samples: int16 of shape (samples,) at 16 kHz, at most 30 s.
            language: ISO 639-1 code, if not the decoder's own.

        Returns:
            The words, with times in seconds since the first of `samples`, and how sure the model is.

        Raises:
            EngineError: the model does not know the language.
        """
        tokenizer = self._tokenizer(language or self._language)
        short_s = min(_duration_s(samples) + self._windows.final_padding_s, FULL_WINDOW_S)
        for input_s in dict.fromkeys((short_s, FULL_WINDOW_S)):
            encoded = self._encode(samples, input_s)
            hypothesis = self._generate(
                tokenizer, encoded, beam_size=self._beam_size, limit=_token_limit(samples)
            )
            words = self._align(tokenizer, encoded, hypothesis.tokens, samples)
            texts = [word.text for word in words]
            if not hypothesis.hit_limit and not has_loop(texts):
                return Decoded(words, hypothesis.is_sure)
        return Decoded(words[: count_before_loop(texts)], hypothesis.is_sure)

    def _tokenizer(self, language: str) -> Tokenizer:
        language = _WHISPER_CODES.get(language, language)
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
        """Encode the samples with silence after them, `input_s` or a little more in all (30 s at most)."""
        # The runtime keeps memory for every length that it has seen: 100 MB less for a few of them.
        length = round(min(math.ceil(input_s), FULL_WINDOW_S) * SAMPLE_RATE_HZ)
        return self._model.encode(padded_log_mel(self._model.feature_extractor, samples, length))

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


def padded_log_mel(extractor: FeatureExtractor, samples: Samples, length: int) -> NDArray[np.float32]:
    """Compute the spectrogram of the samples with silence after them, `length` in all.

    That of the silence is known beforehand, and most of what a partial hears is silence.
    """
    sound = np.zeros(min(len(samples) + extractor.n_fft, length), np.float32)
    sound[: len(samples)] = samples[: len(sound)]
    log_mel = extractor(sound / 32768, padding=0)
    # Undo the scaling: what is quieter by more than this than the loudest is raised to that.
    loudest = 4 * float(log_mel.max()) - 4
    silence = (max(_LOG_MEL_OF_SILENCE, loudest - _LOG_MEL_RANGE) + 4) / 4
    padded = np.full((len(log_mel), length // extractor.hop_length), silence, np.float32)
    padded[:, : log_mel.shape[1]] = log_mel
    return padded


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


def _place_roughly(
    tokenizer: Tokenizer, tokens: list[int], confidence: float, spoken_s: tuple[float, float]
) -> tuple[DecodedWord, ...]:
    """Share the time out among the words by their lengths; give each the confidence of all."""
    words: list[tuple[str, list[int]]] = []
    for text, part in zip(*tokenizer.split_to_word_tokens(tokens), strict=True):
        if words and not _begins_word(tokenizer, text):
            before, tokens_before = words.pop()
            words.append((before + text, tokens_before + part))
        else:
            words.append((text, part))
    if not any(_has_letter(text) for text, _ in words):
        return ()
    start_s, end_s = spoken_s
    ends = np.cumsum([len(text) for text, _ in words])
    times_s = [start_s, *(start_s + max(0.0, end_s - start_s) * ends / ends[-1]).tolist()]
    return tuple(
        DecodedWord(text, from_s, to_s, confidence, tuple(part))
        for (text, part), (from_s, to_s) in zip(words, itertools.pairwise(times_s), strict=True)
    )


def _count_words(words: Sequence[DecodedWord], tokens: int) -> int:
    """Return how many leading words the first `tokens` tokens spell."""
    ends = itertools.accumulate(len(word.tokens) for word in words)
    return sum(end <= tokens for end in ends)
