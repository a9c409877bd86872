"""Ragged token ids and the learned tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from encoder_texts import some_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from kontrast.encoders import TokenIds
from kontrast.encoders.wordpieces import train_tokenizer
from kontrast.errors import DataError

pytest.importorskip("tokenizers")
ROWS = st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=8)


def rows_of(tokens: TokenIds) -> list[list[int]]:
    return [tokens.row(i).tolist() for i in range(len(tokens))]


@settings(deadline=None, max_examples=60, derandomize=True)
@given(ROWS, st.integers(0, 2**32 - 1))
def test_ragged_operations_equal_lists(rows: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = TokenIds.of(rows)
    assert rows_of(tokens) == rows
    order = rng.integers(len(rows), size=5)
    assert rows_of(tokens[order]) == [rows[i] for i in order]
    mask = rng.random(len(tokens.ids)) < 0.5
    parts = np.split(mask, tokens.offsets[1:-1])
    assert rows_of(tokens.keep(mask)) == [[t for t, keep in zip(row, part) if keep] for row, part in zip(rows, parts)]
    assert rows_of(tokens.truncate(3)) == [row[:3] for row in rows]
    starts = np.array([rng.integers(len(row) + 1) for row in rows])
    lengths = np.array([rng.integers(len(row) - start + 1) for row, start in zip(rows, starts)])
    assert rows_of(tokens.select(starts, lengths)) == [r[s : s + n] for r, s, n in zip(rows, starts, lengths)]
    dense, mask = tokens.padded(7, before=[101], after=[102, 103])
    for row, ids, present in zip(rows, dense, mask):
        whole = [101, *row, 102, 103]
        assert ids.tolist() == whole + [7] * (len(ids) - len(whole))
        assert present.sum() == len(whole)


def test_empty_selections() -> None:
    tokens = TokenIds.of([[1, 2], []])
    assert len(tokens[np.array([], dtype=np.int64)]) == 0
    assert TokenIds.of([]).padded(0)[0].shape == (0, 1)
    assert rows_of(tokens[0:1]) == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("numpy.sortValues(axis=0)", "numpy . sort values ( axis = 0 )"),
        ("HTTPServer getURL float32Array", "http server get url float 32 array"),
        ("snake_case_name  DON'T", "snake case name don ' t"),
        ("ｗｉｄｅ Ünï 漢字", "wide ünï 漢字"),
    ],
)
def test_identifiers_are_read_as_words(text: str, words: str) -> None:
    tokenizer = train_tokenizer(some_texts())
    normal = tokenizer.normalizer.normalize_str(text)
    assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)] == words.split()


def test_special_tokens_come_first_and_the_size_is_kept() -> None:
    tokenizer = train_tokenizer(some_texts(), 300)
    assert [tokenizer.token_to_id(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert tokenizer.get_vocab_size() <= 300
    assert tokenizer.encode("sort values").tokens == ["[CLS]", "sort", "values", "[SEP]"]
    assert "##a" in tokenizer.get_vocab()
    assert tokenizer.encode("##a").ids != [2, tokenizer.token_to_id("##a"), 3]


def test_the_same_texts_give_the_same_tokenizer_in_every_process() -> None:
    code = (
        "from encoder_texts import some_texts; from kontrast.encoders.wordpieces import train_tokenizer;"
        "print(train_tokenizer(some_texts(), 300).to_str())"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    here = [train_tokenizer(some_texts(), 300).to_str() for _ in range(3)]
    assert [json.loads(text) for text in here] == [json.loads(run.stdout)] * 3


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(DataError, match="hold no word"):
        train_tokenizer(["", "  "])
