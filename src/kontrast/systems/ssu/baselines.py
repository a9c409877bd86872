"""What a reader would try first: a constant, and ridge regressions on words and on averaged vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.data.utterances import Stream, Utterances
from kontrast.evaluation.sentiment import sentiment_metrics

ALPHAS = 10.0 ** np.arange(0, 5.5, 0.5)
LIMIT = 3.0


def simple_baselines(train: Utterances, test: Utterances) -> dict[str, dict[str, float]]:
    """Metrics of each on the test part. Ridge chooses its penalty by leave-one-out on the training part; scores are
    clipped to [-3, 3]; features are standardised with the training part."""
    truth = train.labels.astype(np.float64)
    found = {"constant": np.full(len(test), truth.mean()), "TF-IDF ridge": _tfidf(train, test)}
    inputs: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    if train.text is not None and test.text is not None:
        inputs["mean word vectors ridge"] = (sequence_means(train.text), sequence_means(test.text))
    if train.sentence is not None and test.sentence is not None:
        inputs["sentence vectors ridge"] = (train.sentence, test.sentence)
    best = list(inputs)[-1] if inputs else None
    for name, stream in train.streams.items():
        other = test.streams.get(name)
        if other is not None and len(stream.rows):
            inputs[f"{name} ridge"] = (sequence_means(stream), sequence_means(other))
    if best is not None and "audio ridge" in inputs:
        joined = [np.hstack([inputs[best][side], inputs["audio ridge"][side]]) for side in (0, 1)]
        inputs[best.replace(" ridge", " + audio ridge")] = (joined[0], joined[1])
    found |= {name: ridge(left, truth, right) for name, (left, right) in inputs.items()}
    return {name: sentiment_metrics(np.clip(scores, -LIMIT, LIMIT), test.labels) for name, scores in found.items()}


def sequence_means(stream: Stream) -> npt.NDArray[np.float64]:
    """(n, d) mean of each utterance's own entries, 0 where there are none."""
    own = np.ones(len(stream.rows), bool) if stream.centre is None else stream.centre
    owner = np.repeat(np.arange(len(stream)), stream.lengths)[own]
    sums = np.zeros((len(stream), stream.dim))
    np.add.at(sums, owner, stream.values[stream.rows[own]])
    return np.asarray(sums / np.maximum(np.bincount(owner, minlength=len(stream)), 1)[:, None])


def ridge(known: npt.NDArray[Any], truth: npt.NDArray[np.float64], asked: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(k,) predictions of a ridge regression from (n, d) and (n,) for (k, d)."""
    from sklearn.linear_model import RidgeCV

    left, right = np.asarray(known, np.float64), np.asarray(asked, np.float64)
    mean, std = left.mean(0), left.std(0)
    std = np.where(std < 1e-9, 1.0, std)
    model = RidgeCV(ALPHAS).fit((left - mean) / std, truth)
    return np.asarray(model.predict((right - mean) / std), np.float64)


def _tfidf(train: Utterances, test: Utterances) -> npt.NDArray[np.float64]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeCV

    texts = [[" ".join(words) for words in data.tokens] for data in (train, test)]
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    try:
        left = vectoriser.fit_transform(texts[0])
    except ValueError:
        # No utterance has a word.
        return np.full(len(test), float(train.labels.mean()))
    # A linear kernel keeps leave-one-out exact and cheap.
    kernel, asked = (left @ left.T).toarray(), (vectoriser.transform(texts[1]) @ left.T).toarray()
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-9
    basis = vectors[:, kept] / np.sqrt(values[kept])
    model = RidgeCV(10.0 ** np.arange(-2, 3.5, 0.5)).fit(kernel @ basis, train.labels.astype(np.float64))
    return np.asarray(model.predict(asked @ basis), np.float64)
