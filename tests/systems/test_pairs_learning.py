"""`pairs` on real parallel sentences (SIB-200): learning must beat word overlap, and only with the true pairing.

English and Spanish share names and numbers, so BM25 and an untrained bag of subwords already find half of the
translations; 701 training pairs must add a clear margin on the official test part.
"""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from kontrast.data.tables import write_table
from kontrast.evaluation.intervals import paired_difference
from kontrast.systems.pairs import Pairs

pytestmark = pytest.mark.learning

OPTIONS = {"epochs": 20, "batch_size": 128, "id": "key"}
MARGIN = 0.12


@pytest.fixture(scope="module")
def parallel(shared_data, tmp_path_factory):
    """The path of a table with columns key, english, spanish and split: 701, 99 and 204 rows."""
    folder = shared_data / "sib200"
    if not folder.is_dir():
        pytest.skip("no sib200 there")
    parts = []
    for file, split in (("train.tsv", "train"), ("dev.tsv", "valid"), ("test.tsv", "test")):
        texts = {}
        for column, language in (("english", "eng_Latn"), ("spanish", "spa_Latn")):
            with (folder / language / file).open(newline="", encoding="utf-8") as stream:
                rows = {row["index_id"]: row["text"] for row in csv.DictReader(stream, delimiter="\t")}
            texts[column] = pd.Series(rows)
        parts.append(pd.DataFrame(texts).rename_axis("key").reset_index().assign(split=split))
    return write_table(pd.concat(parts), tmp_path_factory.mktemp("sib200") / "parallel.parquet")


def test_translations_are_learned_from_701_pairs(parallel):
    system = Pairs(**OPTIONS)
    parts = system.split(system.read(parallel))
    assert [len(part) for _, part in parts] == [701, 99, 204]
    assert system.leaks(parts.train, parts.test).clean
    system.fit(parts.train, parts.valid)
    learned = system.measure(parts.test)
    baselines = system.baselines(parts.train, parts.test)
    found = learned.metrics["recall@10"]
    for name in ("BM25", "untrained encoder"):
        assert found > baselines[name]["recall@10"] + MARGIN, f"{found:.3f} against {name} {baselines[name]}"
        assert learned.metrics["mrr"] > baselines[name]["mrr"] + MARGIN
    assert learned.metrics["backwards recall@10"] > baselines["BM25"]["recall@10"] + MARGIN

    shuffled = Pairs(**OPTIONS, contrast="shuffled").fit(parts.train, parts.valid).measure(parts.test)
    assert list(shuffled.item_ids) == list(learned.item_ids)
    difference = paired_difference(np.asarray([learned.items]), np.asarray([shuffled.items]))
    assert difference.low > MARGIN, "a shuffled pairing teaches as much"
