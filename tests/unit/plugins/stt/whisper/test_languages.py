"""Other languages: a multilingual model in a folder recognises what it is asked for, in its own letters.

The model here is a stand-in, made in the format of a real one: it knows three words, and which of them it
writes depends on nothing but the token of the language in its prompt.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from ctranslate2.specs import WhisperSpec, model_spec
from livekit import rtc
from livekit.agents import APIConnectOptions, stt
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from agent.errors import EngineError
from agent.values import SAMPLE_RATE_HZ
from plugins.stt.traits import FLUSHED
from plugins.stt.whisper import WhisperSTT

NO_RETRY = APIConnectOptions(max_retry=0)
SAID = {"en": "Yes", "ru": "Да", "uk": "Так"}
SIZE = 8  # of a layer: one unit a language, one for "a word has been said"
HAS_SAID = 7
SPECIAL = [
    "",  # only multilingual models have it, and are known by it
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in SAID),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("multilingual")
    tokens = [*(_letters(f" {word}") for word in SAID.values()), *SPECIAL]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=ids, merges=[]))
    tokenizer.decoder = ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))

    spec = WhisperSpec(1, 1, 1, 1)
    shapes = {
        "encoder/conv1/weight": (SIZE, 80, 3),
        "encoder/conv2/weight": (SIZE, SIZE, 3),
        "encoder/position_encodings/encodings": (1_500, SIZE),
        "decoder/embeddings/weight": (len(tokens), SIZE),
        "decoder/position_encodings/encodings": (448, SIZE),
        "decoder/projection/weight": (len(tokens), SIZE),
        "self_attention/linear_0/weight": (3 * SIZE, SIZE),
        "/attention/linear_1/weight": (2 * SIZE, SIZE),
        "ffn/linear_0/weight": (4 * SIZE, SIZE),
        "ffn/linear_1/weight": (SIZE, 4 * SIZE),
    }

    def fill(layer: model_spec.LayerSpec, name: str, value: object) -> None:
        if value is None or name.endswith("encodings"):  # else it is optional, or has a value
            default = (SIZE,) if name.endswith(("gamma", "beta")) else (SIZE, SIZE)
            shape = next((shape for ending, shape in shapes.items() if name.endswith(ending)), default)
            weights = np.ones(shape) if name.endswith("gamma") else np.zeros(shape)
            setattr(layer, name.rsplit("/", maxsplit=1)[-1], weights.astype(np.float32))

    model_spec.visit_spec(spec, fill)
    decoder = spec.decoder
    # Attention to all tokens alike hands on what they are: the language's unit, and whether a word was said.
    attention = decoder.layer[0].self_attention
    attention.linear[0].weight[2 * SIZE :] = np.eye(SIZE)
    attention.linear[1].weight[:] = np.eye(SIZE)
    for unit, language in enumerate(SAID):
        decoder.embeddings.weight[ids[f"<|{language}|>"], unit] = 1
        decoder.embeddings.weight[unit, HAS_SAID] = 1
        decoder.projection.weight[unit, unit] = 20
    decoder.projection.weight[ids["<|endoftext|>"], HAS_SAID] = 40
    spec.register_vocabulary(tokens)
    spec.config.alignment_heads = [(0, 0)]
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = [ids[f"<|{language}|>"] for language in SAID]
    spec.validate()
    spec.save(str(folder))
    return folder


def _letters(text: str) -> str:
    """How a byte-level tokenizer writes a text in its vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel as Bytes

    [(letters, _)] = Bytes(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return letters


def recognise(engine: WhisperSTT, language: str | None) -> list[stt.SpeechEvent]:
    """The events of a turn that is too short for voice activity to decide on."""
    samples = np.random.default_rng(1).normal(0, 300, SAMPLE_RATE_HZ // 2).astype(np.int16)

    async def session() -> list[stt.SpeechEvent]:
        given = {} if language is None else {"language": language}
        async with engine.stream(conn_options=NO_RETRY, **given) as stream:
            stream.push_frame(rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE_HZ, 1, len(samples)))
            stream.end_input()
            return [event async for event in stream]

    return asyncio.run(session())


@pytest.mark.parametrize(
    ("language", "text"),
    [(None, "Да"), ("ru", "Да"), ("ru-RU", "Да"), ("uk", "Так"), ("uk-UA", "Так"), ("en-US", "Yes")],
)
def test_multilingual_model_writes_the_language_it_is_asked_for(
    multilingual: Path, language: str | None, text: str
) -> None:
    events = recognise(WhisperSTT(model=str(multilingual), language="ru"), language)
    [final] = [event for event in events if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT]
    assert (final.alternatives[0].text, final.alternatives[0].language) == (text, language or "ru")
    assert events[-1].request_id == FLUSHED


@pytest.mark.parametrize("language", ["ru", "uk-UA"])
def test_english_model_says_that_it_knows_no_other_language(language: str) -> None:
    code = language[:2]
    with pytest.raises(EngineError, match=rf'stt\.language "{code}" is unknown to .*; known: en$'):
        recognise(WhisperSTT(), language)


def test_english_model_takes_the_tag_of_a_country() -> None:
    assert recognise(WhisperSTT(), "en-US")[-1].request_id == FLUSHED
