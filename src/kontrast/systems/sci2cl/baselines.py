"""What a reader would try first: principal components of each modality and of both, and k-means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kontrast.systems.sci2cl.views import Prepared

DIMENSIONS = {"rna": 30, "atac": 30, "protein": 20, "composition": 20, "real": 20}
CLIP = 10.0


def component_spaces(train: list[Prepared], test: list[Prepared]) -> dict[str, npt.NDArray[np.float32]]:
    """Test cells in spaces learned from the training cells, by name of the baseline.

    RNA: log-normalised, scaled, PCA. Proteins and compositions: centred log-ratio, scaled, PCA. ATAC: TF-IDF and its
    singular vectors without the first (LSI). Both: the two spaces at equal mean length, side by side.
    """
    from sklearn.decomposition import PCA, TruncatedSVD

    spaces = {}
    for known, asked in zip(train, test):
        kind, weights = known.facts.kind, known.frequencies()
        learned, seen = (part.values(np.arange(len(part)), weights) for part in (known, asked))
        count = min(DIMENSIONS[kind], min(learned.shape) - 1)
        if kind == "atac":
            space = TruncatedSVD(count, random_state=0).fit(learned).transform(seen)[:, 1:]
            name = f"{known.facts.name} LSI"
        else:
            mean, deviation = learned.mean(0), learned.std(0)
            deviation[deviation < 1e-6] = 1.0
            scaled = [np.clip((part - mean) / deviation, -CLIP, CLIP) for part in (learned, seen)]
            space = PCA(
                max(count, 1), random_state=0, svd_solver="full" if count < 50 and learned.size < 1e7 else "auto"
            )
            space = space.fit(scaled[0]).transform(scaled[1])
            name = f"{known.facts.name} PCA"
        spaces[name] = np.asarray(space, dtype=np.float32)
    if len(spaces) == 2:
        sides = [space / max(float(np.linalg.norm(space, axis=1).mean()), 1e-9) for space in spaces.values()]
        spaces["both side by side"] = np.concatenate(sides, axis=1)
    return spaces
