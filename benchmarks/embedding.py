"""Embedding throughput beside sentence-transformers: the same MiniLM weights, the same texts, one process, one run.

    python benchmarks/embedding.py                       # both mixes, two threads
    python benchmarks/embedding.py --texts 200 --threads 1 --json embedding.json

Texts come from the pydocs data set (``kontrast data fetch pydocs``). "short" has single sentences; "mixed" has anything
from a sentence to passages that are cut at the model's longest input. Contestants take turns, so that a change of the
machine's load meets all of them; ratios are those of medians. "CPU" is processor time, all threads together: it says
what the work costs where other programs compete for the cores. Vectors are compared row by row with
sentence-transformers' own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from kontrast.data.catalogue import path as data_path
from kontrast.data.tables import read_table
from kontrast.encoders import TextEncoder, encode_texts, inference, resolve_text_encoder
from kontrast.encoders.inference import fast_bf16
from kontrast.encoders.resolve import PACKAGED

Vectors = npt.NDArray[np.float32]
MIXES = {"short": (1,), "mixed": (1, 1, 1, 2, 4, 8, 16, 24)}
BASE = "sentence-transformers fp32"


def make_texts(mix: str, count: int, seed: int) -> list[str]:
    """`count` texts, each of as many joined sentences as drawn from the mix."""
    table = read_table(data_path("pydocs") / "pydocs.parquet", ["sentence", "target"])
    sentences, targets = table.texts("sentence"), table.texts("target")
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        chosen = rng.integers(0, len(sentences), rng.choice(MIXES[mix]))
        parts = (f"{targets[row]}: {sentences[row]}" if len(chosen) > 1 else sentences[row] for row in chosen)
        texts.append(" ".join(parts))
    return texts


def contestants(encoder: TextEncoder) -> dict[str, Callable[[list[str]], Vectors]]:
    """By name, what turns texts into vectors; the first one is what the others are compared with."""
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(PACKAGED["minilm"]()), device="cpu")
    theirs.max_seq_length = encoder.max_tokens
    low = SentenceTransformer(str(PACKAGED["minilm"]()), device="cpu", model_kwargs={"dtype": torch.bfloat16})
    low.max_seq_length = encoder.max_tokens

    def ours(precision: str) -> Callable[[list[str]], Vectors]:
        def run(texts: list[str]) -> Vectors:
            with inference(precision=precision):  # type: ignore[arg-type]
                return encode_texts(encoder, texts)

        return run

    return {
        BASE: lambda texts: np.asarray(theirs.encode(texts, show_progress_bar=False)),
        "sentence-transformers bf16": lambda texts: (
            low.encode(texts, show_progress_bar=False, convert_to_tensor=True).float().numpy()
        ),
        "kontrast fp32": ours("fp32"),
        "kontrast bf16": ours("bf16"),
    }


def measure(mix: str, count: int, rounds: int, seed: int) -> list[dict[str, float | str]]:
    """One row per contestant."""
    encoder = resolve_text_encoder("minilm")
    texts = make_texts(mix, count, seed)
    tokens = int(encoder.lengths(encoder.tokenize(texts)).sum())
    runs = contestants(encoder)
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    vectors: dict[str, Vectors] = {}
    for run in runs.values():
        run(texts[:8])
    for _ in range(rounds):
        for name, run in runs.items():
            begun, spent = time.perf_counter(), time.process_time()
            found = run(texts)
            wall[name].append(time.perf_counter() - begun)
            cpu[name].append(time.process_time() - spent)
            vectors[name] = found / np.linalg.norm(found, axis=1, keepdims=True)
    seconds = {name: statistics.median(values) for name, values in wall.items()}
    spent_by = {name: statistics.median(values) for name, values in cpu.items()}
    return [
        {
            "mix": mix,
            "what": name,
            "texts/s": count / seconds[name],
            "tokens/s": tokens / seconds[name],
            "speed": seconds[BASE] / seconds[name],
            "CPU": spent_by[BASE] / spent_by[name],
            "least cosine": float((vectors[name] * vectors[BASE]).sum(1).min()),
        }
        for name in runs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mix", choices=MIXES, action="append")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{platform.processor() or platform.machine()}, {args.threads} threads, torch {torch.__version__}, "
        f"bf16 in hardware: {'yes' if fast_bf16() else 'no'}; median of {args.rounds} rounds of {args.texts} texts"
    )
    rows = [
        row
        for mix in args.mix or MIXES
        for row in measure(mix, args.texts, args.rounds, args.seed)
    ]  # fmt: skip
    print("| mix | what | texts/s | tokens/s | speed | CPU | least cosine |\n|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['mix']} | {row['what']} | {row['texts/s']:,.1f} | {row['tokens/s']:,.0f} | {row['speed']:.2f} | "
            f"{row['CPU']:.2f} | {row['least cosine']:.6f} |"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as stream:
            json.dump(rows, stream, indent=2)


if __name__ == "__main__":
    main()
