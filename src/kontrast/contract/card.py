"""What a system says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """The facts about a method that `list`, `info`, the report and the documentation print.

    Attributes:
        name: registered name, such as ``"pairs"``.
        title: one line a newcomer understands.
        summary: the idea in two to four sentences.
        task: what it is for, such as "retrieval" or "link prediction".
        modalities: kinds of input, such as ``("text", "image")``.
        formats: file formats that `read` takes, one line each.
        primary_metric: the metric that ablations compare; a key of `evaluate`'s result.
        higher_is_better: direction of the primary metric.
        ablation: what ``contrast=off`` switches off, as the end of "without ...".
        null_control: what ``contrast=shuffled`` shuffles.
        unit: what a test item is, in the plural.
        arxiv: identifier of the paper, or None.
        citation: how to cite it.
        extras: extras of kontrast that it needs beyond the core.
    """

    name: str
    title: str
    summary: str
    task: str
    modalities: tuple[str, ...]
    formats: tuple[str, ...]
    primary_metric: str
    higher_is_better: bool
    ablation: str
    null_control: str
    unit: str = "items"
    arxiv: str | None = None
    citation: str | None = None
    extras: tuple[str, ...] = field(default=())
