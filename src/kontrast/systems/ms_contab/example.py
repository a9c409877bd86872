"""The written example: clearly synthetic tumours of made-up sites, a MAF file per site."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kontrast.data.mutations import CHROMOSOMES, SUBSTITUTIONS, chromosome_lengths
from kontrast.files import write_text
from kontrast.randomness import numpy_rng

SITES = ("amber", "basalt", "cobalt", "dolomite", "emerald", "flint", "garnet", "hematite")
PATIENTS = 24
GENES = 60
MUTATIONS = (25, 70)
HEADER = (
    "Hugo_Symbol", "NCBI_Build", "Chromosome", "Start_Position", "Variant_Classification", "Variant_Type",
    "Reference_Allele", "Tumor_Seq_Allele2", "Tumor_Sample_Barcode",
)  # fmt: skip


def write_example_mafs(folder: str | Path) -> Path:
    """Writes a folder ``tumours`` with eight MAF files, 24 patients each, and a few indels that are to be left out.

    Each site has substitutions that it favours, and two genes that drive it; whatever else is mutated is chance. Genes
    lie on one chromosome each, so the two views of a patient are of the same mutations.
    """
    rng = numpy_rng(0, "example of ms_contab")
    lengths = chromosome_lengths("hg38")
    places = rng.integers(len(CHROMOSOMES), size=GENES)
    starts = rng.integers(1_000_000, lengths[places] - 2_000_000)
    target = Path(folder) / "tumours"
    for number, site in enumerate(SITES):
        spectrum = rng.dirichlet(np.full(len(SUBSTITUTIONS), 0.6))
        weights = np.ones(GENES)
        weights[[2 * number, 2 * number + 1]] = 12.0
        lines = ["#version 2.4 (synthetic)", "\t".join(HEADER)]
        for patient in range(PATIENTS):
            name = f"SYN-{site[:2].upper()}-{patient + 1:03d}"
            count = int(rng.integers(*MUTATIONS))
            genes = rng.choice(GENES, count, p=weights / weights.sum())
            classes = rng.choice(len(SUBSTITUTIONS), count, p=spectrum)
            for gene, place in zip(genes, classes):
                reference, alternative = SUBSTITUTIONS[place].split(">")
                kind = ("Missense_Mutation", "SNP")
                if rng.random() < 0.03:
                    reference, alternative, kind = reference, "-", ("Frame_Shift_Del", "DEL")
                cells = (
                    f"GENE{gene + 1:02d}", "GRCh38", f"chr{CHROMOSOMES[places[gene]]}",
                    str(starts[gene] + int(rng.integers(1_000_000))), *kind, reference, alternative, name,
                )  # fmt: skip
                lines.append("\t".join(cells))
        write_text(target / f"{site}.maf", "\n".join(lines) + "\n")
    return target
