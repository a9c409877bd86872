"""A tokenizer learned from the texts at hand, which reads identifiers as words.

``numpy.sortValues(axis=0)`` becomes numpy . sort values ( axis = 0 ): words end at punctuation, underscores, between
letters and digits, and inside camelCase. Below the word it is WordPiece.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from kontrast.errors import DataError
from kontrast.extras import require

PAD, UNKNOWN, OPEN, CLOSE, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_CAMEL = r"(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})"
_MOST_LETTERS = 1000
_WORD = r"[\p{L}\p{M}]+|\p{N}+|[^\s\p{L}\p{M}\p{N}_]"


def train_tokenizer(texts: Sequence[str], vocab_size: int = 16_000, *, min_frequency: int = 2) -> Any:
    """A WordPiece tokenizer (`tokenizers.Tokenizer`) for these texts; the same texts give the same tokenizer.

    Args:
        texts: the training texts, never the test texts.
        vocab_size: most entries, the 5 special tokens and the alphabet included.
        min_frequency: a piece seen less often gets no entry of its own.

    Raises:
        DataError: if the texts hold no word.
        MissingExtraError: without the tokenizers package.
    """
    tk = require("tokenizers", extra="text", purpose="to learn a vocabulary")
    tokenizer = _untrained(tk, {UNKNOWN: 0})
    # The trainer numbers continuation letters ("##a") in hash order, and ties between merges follow those numbers.
    # Naming the letters as special tokens fixes their numbers; the tokenizer is then rebuilt without that side effect.
    letters = _letters(tokenizer.normalizer, texts)
    first = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    trainer = tk.trainers.WordPieceTrainer(
        vocab_size=max(vocab_size, len(first)),
        min_frequency=min_frequency,
        special_tokens=first,
        limit_alphabet=len(letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if not letters:
        raise DataError("the training texts hold no word to learn a vocabulary from", mend="check the text column")
    trained = _untrained(tk, tokenizer.get_vocab())
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    ends = [(token, trained.token_to_id(token)) for token in (OPEN, CLOSE)]
    trained.post_processor = tk.processors.TemplateProcessing(single=f"{OPEN} $A {CLOSE}", special_tokens=ends)
    return trained


def _untrained(tk: Any, vocab: dict[str, int]) -> Any:
    tokenizer = tk.Tokenizer(tk.models.WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=64))
    # Splitting camelCase has to come before lower-casing, and only normalisers run that early.
    split_camel = tk.normalizers.Replace(tk.Regex(_CAMEL), " ")
    tokenizer.normalizer = tk.normalizers.Sequence([tk.normalizers.NFKC(), split_camel, tk.normalizers.Lowercase()])
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(tk.Regex(_WORD), behavior="removed", invert=True)
    tokenizer.decoder = tk.decoders.WordPiece()
    return tokenizer


def _letters(normalizer: Any, texts: Sequence[str]) -> list[str]:
    """The most frequent characters, at most 1,000, in order of code point; rarer ones are unknown."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    normal: Counter[str] = Counter()
    for character, count in counts.items():
        for part in normalizer.normalize_str(character):
            if not part.isspace() and part != "_":
                normal[part] += count
    frequent = sorted(normal, key=lambda letter: (-normal[letter], letter))[:_MOST_LETTERS]
    return sorted(frequent)
