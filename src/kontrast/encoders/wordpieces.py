"""A tokenizer learned from the texts at hand, which reads identifiers as words.

``numpy.sortValues(axis=0)`` becomes numpy . sort values ( axis = 0 ): words end at punctuation, underscores, between
letters and digits, and inside camelCase. Below the word it is WordPiece.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kontrast.errors import DataError
from kontrast.extras import require

PAD, UNKNOWN, OPEN, CLOSE, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_CAMEL = r"(?<=[\p{Ll}\p{N}])(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})"
_WORD = r"[\p{L}\p{M}]+|\p{N}+|[^\s\p{L}\p{M}\p{N}_]"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 16_000, *, min_frequency: int = 2) -> Any:
    """A WordPiece tokenizer (`tokenizers.Tokenizer`) for these texts.

    Args:
        texts: the training texts, never the test texts.
        vocab_size: most entries, the 5 special tokens and the alphabet included.
        min_frequency: a piece seen less often gets no entry of its own.

    Raises:
        DataError: if the texts hold no word.
        MissingExtraError: without the tokenizers package.
    """
    tk = require("tokenizers", extra="text", purpose="to learn a vocabulary")
    tokenizer = tk.Tokenizer(tk.models.WordPiece(unk_token=UNKNOWN, max_input_chars_per_word=64))
    # Splitting camelCase has to come before lower-casing, and only normalisers run that early.
    split_camel = tk.normalizers.Replace(tk.Regex(_CAMEL), " ")
    tokenizer.normalizer = tk.normalizers.Sequence([tk.normalizers.NFKC(), split_camel, tk.normalizers.Lowercase()])
    tokenizer.pre_tokenizer = tk.pre_tokenizers.Split(tk.Regex(_WORD), behavior="removed", invert=True)
    tokenizer.decoder = tk.decoders.WordPiece()
    trainer = tk.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
        limit_alphabet=1000,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= len(SPECIAL_TOKENS):
        raise DataError("the training texts hold no word to learn a vocabulary from", mend="check the text column")
    ends = [(token, tokenizer.token_to_id(token)) for token in (OPEN, CLOSE)]
    tokenizer.post_processor = tk.processors.TemplateProcessing(single=f"{OPEN} $A {CLOSE}", special_tokens=ends)
    return tokenizer
