"""What a reader would try first: BM25, TF-IDF, and a ready text encoder on the beginning of each page."""

from __future__ import annotations

import numpy as np

from kontrast.data.documents import Collection
from kontrast.encoders import TextEncoderConfig, resolve_text_encoder
from kontrast.encoders.cached_texts import CachedTexts
from kontrast.evaluation.lexical import bm25_values, tokenise
from kontrast.evaluation.relevance import Relevance
from kontrast.evaluation.retrieval import retrieval_values, retrieval_values_from_scores
from kontrast.extras import installed
from kontrast.systems.seal.measuring import KS, only

HEAD_TOKENS = 256


def lexical_baselines(data: Collection, relevance: Relevance) -> dict[str, dict[str, float]]:
    """BM25, where its package is there, and the cosine of TF-IDF vectors (sublinear, fitted on all documents)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [document.plain() for document in data.documents]
    found = {}
    if installed("bm25s"):
        found["BM25"] = only(bm25_values(data.texts, texts, relevance, ks=KS))
    vectoriser = TfidfVectorizer(sublinear_tf=True, tokenizer=tokenise, token_pattern=None, lowercase=False)
    documents = vectoriser.fit_transform(texts)
    scores = (vectoriser.transform(data.texts) @ documents.T).toarray()
    found["TF-IDF"] = only(retrieval_values_from_scores(np.asarray(scores), relevance, KS))
    return found


def head_baseline(data: Collection, relevance: Relevance, name: str) -> dict[str, float]:
    """A ready text encoder without training, on the first tokens of each page without tags."""
    encoder = CachedTexts(resolve_text_encoder(TextEncoderConfig(name=name, max_tokens=HEAD_TOKENS)))
    # What comes after the first tokens does not matter; a page is cut so that it need not be hashed and tokenised.
    texts = [document.plain()[: 40 * HEAD_TOKENS] for document in data.documents]
    documents = encoder.vectors(texts, f"embedding the first {HEAD_TOKENS} tokens of each document")
    queries = encoder.vectors(data.texts).astype(np.float32)
    return only(retrieval_values(queries, documents.astype(np.float32), relevance, ks=KS))
