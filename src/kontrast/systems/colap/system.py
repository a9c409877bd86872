"""System: the estimator over labelled texts in several languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.contract import Card, Embeddings, Figure, Measurement, System
from kontrast.data.languages import FORMATS, LanguageTexts, read_languages
from kontrast.data.splits import Splits
from kontrast.encoders.layered import layer_count
from kontrast.encoders.resolve import PACKAGED
from kontrast.encoders.transformer import TransformerEncoder
from kontrast.errors import DataError, suggest
from kontrast.evaluation.leaks import LeakReport, check_leaks
from kontrast.progress import say
from kontrast.systems.colap.baselines import simple_baselines
from kontrast.systems.colap.config import ColapConfig
from kontrast.systems.colap.encoder import find_encoder, key_of_encoder, load_encoder, save_encoder
from kontrast.systems.colap.example import write_example_languages
from kontrast.systems.colap.figures import language_figures
from kontrast.systems.colap.measuring import asked_rows, measurement
from kontrast.systems.colap.model import Branch, ColapModel, Cut
from kontrast.systems.colap.prompt import Prompt, built_in, classes_of, read_prompt, without_slot
from kontrast.systems.colap.reading import Readings, TextReader
from kontrast.systems.colap.stored import StoredStage
from kontrast.systems.colap.views import (
    ENGLISH,
    class_codes,
    draw_episode,
    episode_batches,
    roles,
    source_batches,
    split_languages,
    with_labels_permuted,
)
from kontrast.systems.colap.words import LanguageModelHead, own_head_parts, piece_ids, word_vectors
from kontrast.training import Stage, TrainerConfig

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
SOURCE_STAGE = "source"
ROWS = {"vectors": 4096, "states": 64, "ids": 64}
"""Rows of a batch when nothing is learned, by what the trained part sees."""


class Colap(System[ColapConfig, LanguageTexts]):
    """Text classification in languages with few labels, from one with many.

    Rows are texts. A text is answered by the classifier of its language; languages that were not adapted to are
    answered by the source's.
    """

    card: ClassVar[Card] = Card(
        name="colap",
        title="a text classifier brought from one language to others with a few labelled examples of each",
        summary=(
            "A prompt with one slot makes a vector of a text. A classifier learns from the source language; then, for "
            "each target language, from K labelled examples by cross-entropy, while their vectors are drawn to those "
            "of their translations in the source language (XRCL), or to those of the same class (XCCL)."
        ),
        task="text classification",
        modalities=("text",),
        formats=FORMATS,
        primary_metric="accuracy",
        higher_is_better=True,
        ablation="the cross-lingual contrast (cross-entropy on the target examples alone)",
        null_control="which source example stands beside which target example",
        unit="texts",
        arxiv="2508.19464",
        citation="Borchert, De Weerdt, Moens: few-shot language adaptation with contrast and prompts, 2508.19464, 2025",
        extras=("e5",),
    )
    Config = ColapConfig
    model_: ColapModel
    encoder_: TransformerEncoder
    smoke: ClassVar[dict[str, Any]] = {
        "text": {"name": "transformer", "dim": 32, "layers": 2, "heads": 2, "vocab_size": 600, "max_tokens": 32},
        "k": 12,
        "adapter": 16,
        "source_stage": {"epochs": 30, "optimiser": {"learning_rate": 3e-3}},
        "epochs": 10,
        "cache": "memory",
    }

    answer_options: ClassVar[tuple[str, ...]] = ("language",)

    # ---- data ----------------------------------------------------------------------------------------------------

    def read(self, path: str | Path, *, purpose: Literal["train", "predict"] = "train") -> LanguageTexts:
        config, fitted = self.config, getattr(self, "facts_", None)
        prompt = Prompt(**fitted["prompt"]) if fitted else self._given_prompt()
        only = None
        if purpose == "train" and config.targets is not None:
            only = [*config.targets, *([config.source] if config.source is not None else ENGLISH)]
        reading = partial(
            read_languages,
            path,
            columns=prompt.columns if prompt is not None else None,
            fields=prompt.fields if prompt is not None else None,
            texts_alone=purpose == "predict",
            language=config.language,
        )
        data = reading(only=only)
        if only is not None and config.source is None and not set(ENGLISH) & set(data.languages):
            whole = reading()
            data = whole.take(np.isin(whole.language.astype(str), [*only, roles(config, whole)[0]]))
        missing = sorted(set(config.targets or ()) - set(data.languages)) if purpose == "train" else []
        if missing:
            known = reading().languages
            what = f"has no texts in '{missing[0]}' (option 'targets'); {suggest(missing[0], known)}"
            raise DataError(what, file=path, mend="name languages of the data")
        if purpose == "train" and not data.labelled.any():
            mend = "give a column label (or category, gold_label), or name it in the prompt file under columns"
            raise DataError("has no labels", file=path, mend=mend)
        return data

    def _given_prompt(self) -> Prompt | None:
        return None if self.config.prompt is None else read_prompt(self.config.prompt)

    @classmethod
    def write_example(cls, path: str | Path) -> Path:
        return write_example_languages(path)

    def split(self, data: LanguageTexts) -> Splits[LanguageTexts]:
        """The parts that the data name, else seeded with translations in one part."""
        return split_languages(data, self.config.split_seed)

    def size(self, data: LanguageTexts) -> int:
        return len(data)

    def take(self, data: LanguageTexts, rows: Sequence[int] | npt.NDArray[Any]) -> LanguageTexts:
        return data.take(rows)

    def permuted(self, data: LanguageTexts, seed: int) -> LanguageTexts:
        """Labels dealt out anew within each language."""
        return with_labels_permuted(data, seed)

    def chance(self, data: LanguageTexts) -> float:
        """Accuracy of random answers that follow the classes' shares."""
        codes = class_codes(data, self._classes())
        rows = asked_rows(data, codes, self.facts_["source"])
        shares = np.bincount(codes[rows]) / max(1, rows.sum())
        return float((shares**2).sum())

    def leaks(self, train: LanguageTexts, test: LanguageTexts) -> LeakReport:
        """Test texts that stand in the training part, and test texts of which it has a translation."""
        columns = [{"text": data.whole_texts(), "translation": list(data.pair)} for data in (train, test)]
        return check_leaks(columns[0], columns[1], groups=("translation",))

    # ---- learning ------------------------------------------------------------------------------------------------

    def fit(
        self, train: LanguageTexts, valid: LanguageTexts | None = None, *, trainer: TrainerConfig | None = None
    ) -> Self:
        """As `System.fit` says; the first stage may come from an earlier run with the same texts, options and seed."""
        plain = trainer if trainer is not None else TrainerConfig()
        self._trainer = plain.model_dump(mode="json", exclude={"progress", "loggers", "keep", "checkpoint_every"})
        self._stored: StoredStage | None = None
        return super().fit(train, valid, trainer=trainer)

    def learn_facts(self, train: LanguageTexts) -> dict[str, Any]:
        config = self.config
        source, targets = roles(config, train)
        prompt = self._given_prompt() or built_in(list(train.fields))
        labels = sorted({label for label in train.label[train.language == source] if label is not None})
        if len(labels) < 2:
            what = f"the source language '{source}' has {len(labels)} label in its training texts"
            raise DataError(what, file=train.path, mend="give texts of at least two classes")
        classes = classes_of(prompt, labels)
        class_codes(train.take(np.isin(train.language.astype(str), targets)), dict.fromkeys(labels, 0))
        names = sorted(set(classes.values()))
        words = {classes[label]: prompt.word(label) for label in labels}
        self.encoder_ = find_encoder(config.text, [*train.whole_texts(), *words.values(), *words.values()], config.seed)
        pieces = piece_ids([words[name] for name in names], self.encoder_)
        for name, ids in zip(names, pieces):
            if len(ids) > 1:
                say(f"note: the word '{words[name]}' is {len(ids)} tokens; its vector begins as their mean.")
        layers = layer_count(self.encoder_)
        cut = Cut.of(config, layers)
        folder = Path(config.text.name).expanduser()
        self._head_parts = own_head_parts(folder, self.encoder_) if cut.mode != "vectors" else None
        return {
            "source": source,
            "targets": targets,
            "prompt": prompt.to_dict(),
            "classes": {label: names.index(name) for label, name in classes.items()},
            "class_names": names,
            "words": [words[name] for name in names],
            "pieces": pieces,
            "dim": self.encoder_.dim,
            "layers": layers,
            "own_head": self._head_parts is not None,
            "encoder": {
                "packaged": config.text.name in PACKAGED,
                "key": key_of_encoder(config.text, self.encoder_),
            },
        }

    def build(self, facts: dict[str, Any]) -> ColapModel:
        encoder = None if Cut.of(self.config, int(facts["layers"])).mode == "vectors" else self._encoder()
        return ColapModel(facts, self.config, encoder)

    def _encoder(self) -> TransformerEncoder:
        """The frozen encoder; a packaged one is read when it is first needed."""
        if not hasattr(self, "encoder_"):
            self.encoder_ = find_encoder(self.config.text, [], self.config.seed)
        return self.encoder_

    def _classes(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self.facts_["classes"]
        return found

    def reader(self, *, bare: bool = False) -> TextReader:
        """Readings of texts with the prompt around them; or bare, as sentence vectors from the last layer."""
        facts = self.facts_
        cut = Cut.of(self.config, int(facts["layers"]))
        prompt = Prompt(**facts["prompt"])
        mode, layers, place = cut.mode, cut.frozen, self.config.place
        if bare:
            prompt, mode, layers, place = without_slot(prompt.fields), "vectors", int(facts["layers"]), "mean"
        return TextReader(
            self._encoder, facts["encoder"]["key"], prompt, mode=mode, layers=layers, place=place,
            where=self.config.cache,
        )  # fmt: skip

    def stages(self, train: LanguageTexts, valid: LanguageTexts | None) -> Iterator[Stage]:
        yield from self.source_stage(train, valid)
        yield from self.adaptations(train)

    def source_stage(self, train: LanguageTexts, valid: LanguageTexts | None) -> Iterator[Stage]:
        """Stage 1, unless an earlier run left what it learned."""
        config, source = self.config, self.facts_["source"]
        own = train.take(train.labelled & (train.language == source))
        readings, codes = self.reader().read(own), class_codes(own, self._classes())
        self._start_source(readings)
        batches = source_batches(readings, codes, config)
        validate = None
        if valid is not None:
            held_out = valid.take(valid.labelled & (valid.language == source))
            if len(held_out):
                validate = partial(self._validate, self.reader().read(held_out), class_codes(held_out, self._classes()))
        section = config.source_stage
        stage = Stage(
            name=SOURCE_STAGE,
            model=self.model_.source,
            batches=batches,
            epochs=section.epochs,
            optimiser=section.optimiser,
            seed=config.seed,
            validate=validate,
            monitor="loss" if validate is not None else None,
            mode="min",
        )
        if section.reuse and config.cache == "disk" and config.train != "all":
            held = None if valid is None else valid.take(valid.language == source)
            self._stored = StoredStage.of(self, batches.fingerprint(), held, getattr(self, "_trainer", {}))
            if self._stored.load(self.model_.source):
                say("the source language's classifier is that of an earlier run with the same texts, options and seed.")
                return
        yield stage

    def _start_source(self, readings: Readings) -> None:
        """The head begins with the class words; vectors are centred on those of the source language."""
        branch, pieces = self.model_.source, self.facts_["pieces"]
        if isinstance(branch.head, LanguageModelHead):
            assert self._head_parts is not None
            branch.head.start(self._head_parts, pieces)
            return
        branch.head.start(word_vectors(self._encoder(), pieces))
        if readings.vectors is not None:
            branch.learn_centre(torch.from_numpy(readings.vectors))
        else:
            branch.learn_centre(torch.cat([side[1] for side in self._sides(branch, readings, centred=False)]))

    def adaptations(self, train: LanguageTexts) -> Iterator[Stage]:
        """Stage 2, one training for each target language, each from the source's classifier."""
        config, classes = self.config, self._classes()
        for number, target in enumerate(self.facts_["targets"]):
            branch = self.model_.start(target)
            if config.k == 0:
                continue
            episode = draw_episode(train, classes, self.facts_["source"], target, config)
            own, beside = train.take(episode.target), train.take(episode.source)
            batches = episode_batches(
                self.reader().read(own), self.reader().read(beside), class_codes(own, classes),
                class_codes(beside, classes), config,
            )  # fmt: skip
            weights = {"source_cross_entropy": config.source_ce}
            weights |= {"xrcl": config.xrcl, "xccl": config.xccl} if config.contrasts else {}
            yield Stage(
                name=f"adapt-{number + 1}-{_plain(target)}",
                model=branch,
                batches=batches,
                epochs=config.epochs,
                optimiser=config.optimiser,
                seed=config.seed,
                weights={name: weight for name, weight in weights.items() if weight > 0},
            )

    @torch.no_grad()
    def _validate(self, readings: Readings, codes: Ints) -> dict[str, float]:
        branch = self.model_.source
        logits = torch.cat([side[1] for side in self._sides(branch, readings)])
        truth = torch.from_numpy(codes)
        loss = torch.nn.functional.cross_entropy(logits, truth)
        return {"loss": float(loss), "accuracy": float((logits.argmax(1) == truth).float().mean())}

    def finish(self, train: LanguageTexts, valid: LanguageTexts | None) -> None:
        if self._stored is not None:
            self.history_ = self._stored.completed(self.history_, self.model_.source)

    # ---- use -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _sides(
        self, branch: Branch, readings: Readings, *, centred: bool = True
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Contrasted vectors and logits of all texts on the CPU, batch by batch; not centred: what the body reads."""
        device, size = branch.centre.device, ROWS[branch.cut.mode]
        was_training = branch.training
        branch.eval()
        for start in range(0, len(readings), size):
            chosen = np.arange(start, min(start + size, len(readings)))
            side = {name: tensor.to(device) for name, tensor in readings.take(chosen).tensors().items()}
            found = branch.forward_side(side) if centred else branch.raw(side)
            yield found[0].float().cpu(), found[1].float().cpu()
        branch.train(was_training)

    def answers(self, data: LanguageTexts, *, zero_shot: bool = False) -> tuple[Floats, Floats]:
        """Contrasted vectors (n, d) and class probabilities (n, classes), by the branch of each row's language."""
        self.check_fitted()
        width = int(self.facts_["dim"])
        vectors = np.zeros((len(data), width), np.float32)
        chances = np.zeros((len(data), len(self.facts_["class_names"])), np.float32)
        reader = self.reader()
        for language in data.languages:
            rows = np.flatnonzero(data.language == language)
            branch = self.model_.source if zero_shot else self.model_.branch(language)
            sides = list(self._sides(branch, reader.read(data.take(rows))))
            vectors[rows] = torch.cat([side[0] for side in sides]).numpy()
            chances[rows] = torch.cat([side[1] for side in sides]).softmax(1).numpy()
        return vectors, chances

    def vectors(self, data: LanguageTexts, language: str) -> Floats:
        """(n, d) contrasted vectors of all texts, whatever their language, by the branch of one language."""
        self.check_fitted()
        sides = self._sides(self.model_.branch(language), self.reader().read(data))
        found: Floats = torch.cat([side[0] for side in sides]).numpy()
        return found

    def beside(self, config: ColapConfig) -> Colap:
        """A system with the same classifier of the source language, to be adapted otherwise.

        Args:
            config: options that differ in the second stage alone.
        """
        other = type(self)(config)
        other.facts_ = self.facts_
        if hasattr(self, "encoder_"):
            other.encoder_ = self.encoder_
        other.initialise()
        other.model_.load_state_dict(self.model_.state_dict())
        return other

    def embed(self, data: LanguageTexts) -> Embeddings:
        """The vectors that are contrasted, with language and, where it is known, label."""
        vectors, chances = self.answers(data)
        columns: dict[str, Sequence[Any]] = {
            "language": list(data.language),
            "label": ["" if label is None else label for label in data.label],
            "predicted": [self.facts_["class_names"][number] for number in chances.argmax(1)],
            "text": [" | ".join(row) for row in zip(*data.fields.values())],
        }
        return Embeddings(vectors, data.keys(), "text", columns, label="label", hover="text")

    def predict(self, data: LanguageTexts) -> pd.DataFrame:
        """One row per text: id, language, class, its probability, whether its language was adapted to, and the
        probability of every class in columns ``p(class)``."""
        _, chances = self.answers(data)
        names = self.facts_["class_names"]
        best = chances.argmax(1)
        known = {self.facts_["source"], *(self.facts_["targets"] if self.config.k else ())}
        frame = pd.DataFrame(
            {
                "id": list(data.ids),
                "language": list(data.language),
                "label": [names[number] for number in best],
                "probability": chances[np.arange(len(data)), best],
                "adapted": [language in known for language in data.language],
            }
        )
        return frame.assign(**{f"p({name})": chances[:, number] for number, name in enumerate(names)})

    # ---- measuring -----------------------------------------------------------------------------------------------

    def measure(self, data: LanguageTexts) -> Measurement:
        """accuracy over the target languages' texts, macro_f1 as the mean over these languages, both by language and
        zero-shot, and the gap: the source language's accuracy minus the mean over the target languages."""
        codes = self._known(data)
        predicted, before = (self.answers(data, zero_shot=flag)[1].argmax(1) for flag in (False, True))
        return measurement(data, codes, predicted, before, self.facts_["source"])

    def _known(self, data: LanguageTexts) -> Ints:
        self.check_fitted()
        codes = class_codes(data, self._classes())
        if not (codes >= 0).any():
            raise DataError("has no labels to measure against", file=data.path, mend="give a column label")
        return codes

    def baselines(self, train: LanguageTexts, test: LanguageTexts) -> dict[str, dict[str, float]]:
        """Zero-shot; the same examples without contrast, with and without the source examples; logistic regression on
        frozen sentence vectors of the source language; the most frequent class."""
        return simple_baselines(self, train, test, self._known(test))

    def figures(self, data: LanguageTexts) -> list[Figure]:
        """Accuracy by language, a map of source and target texts, mistakes."""
        return language_figures(self, data, self._known(data))

    # ---- saving --------------------------------------------------------------------------------------------------

    def save_extra(self, folder: Path) -> None:
        """The encoder, unless a package brings it."""
        if not self.facts_["encoder"]["packaged"]:
            save_encoder(self._encoder(), folder, weights=self.config.train != "all")

    def load_extra(self, folder: Path) -> None:
        if not self.facts_["encoder"]["packaged"]:
            self.encoder_ = load_encoder(folder, weights=self.config.train != "all")


def _plain(language: str) -> str:
    """A language code in letters, digits, hyphens and underscores."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_") else "-" for sign in language)
