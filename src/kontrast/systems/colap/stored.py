"""Stored: the source language's classifier of an earlier run, for runs that differ in the second stage alone."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from kontrast.data.catalogue import cache_folder
from kontrast.data.languages import LanguageTexts
from kontrast.errors import DataError
from kontrast.files import replacing
from kontrast.systems.colap.model import Branch

if TYPE_CHECKING:
    from kontrast.systems.colap.system import Colap

VERSION = 1
STAGE = "source"


@dataclass
class StoredStage:
    """What the first stage learned, under a key that covers all it depends on: the contrast is none of it.

    Attributes:
        place: the folder in the cache, whether or not it is there.
        loaded: whether the classifier was taken from it.
        history: the rows of the training that it comes from.
    """

    place: Path
    loaded: bool = False
    history: pd.DataFrame | None = None

    @classmethod
    def of(cls, system: Colap, batches: str, valid: LanguageTexts | None, trainer: dict[str, Any]) -> StoredStage:
        """For a system whose facts are learned.

        Args:
            system: options and facts.
            batches: fingerprint of the training batches.
            valid: the source language's validation texts, by which weights are selected.
            trainer: options of the trainer that the numbers depend on.
        """
        config, facts = system.config, system.facts_
        held = [] if valid is None else [list(valid.label), valid.whole_texts()]
        names = ("prompt", "classes", "class_names", "pieces", "dim", "layers", "own_head", "encoder", "source")
        parts: dict[str, Any] = {
            "version": VERSION,
            "torch": torch.__version__,
            "seed": config.seed,
            "options": [config.train, config.frozen, config.adapter, config.place],
            "stage": config.source_stage.model_dump(mode="json", exclude={"reuse"}),
            "facts": {name: facts[name] for name in names},
            "batches": batches,
            "valid": held,
            "trainer": trainer,
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]
        return cls(cache_folder() / "colap" / digest)

    def load(self, branch: Branch) -> bool:
        """Puts the classifier into `branch` if it is there and whole."""
        with suppress(SafetensorError, OSError, RuntimeError, KeyError, ValueError):
            history = pd.read_parquet(self.place / "history.parquet")
            branch.load_state_dict(load_file(self.place / "branch.safetensors"))
            self.history, self.loaded = history, True
        return self.loaded

    def completed(self, history: pd.DataFrame, branch: Branch) -> pd.DataFrame:
        """The history with the rows of the first stage; a classifier that was trained just now is kept.

        A folder that cannot be written to costs the next run its time, nothing else.
        """
        if self.loaded:
            assert self.history is not None
            return pd.concat([self.history, history], ignore_index=True)
        own = history[history["stage"] == STAGE]
        if len(own):
            # Columns of the second stage's terms are none of the first's.
            own = own.dropna(axis=1, how="all").reset_index(drop=True)
            with suppress(DataError, OSError), replacing(self.place) as temporary:
                temporary.mkdir()
                tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in
                           branch.state_dict().items()}  # fmt: skip
                save_file(tensors, temporary / "branch.safetensors")
                own.to_parquet(temporary / "history.parquet", index=False)
        return history
