"""Mutation files: what each format says, strands and builds, and one clear sentence for each broken file."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from kontrast.data.mutations import (
    CHROMOSOMES,
    CLASSES,
    PYRIMIDINE,
    SUBSTITUTIONS,
    Events,
    MutationCounts,
    build_of,
    chromosome_lengths,
    collapse_matrix,
    count_table,
    other_strand,
    read_mutations,
)
from kontrast.data.mutations.substitutions import chromosome_codes
from kontrast.data.mutations.variants import check_positions
from kontrast.data.mutations.vcf import read_vcf
from kontrast.errors import DataError

MAF = """#version 2.4
Hugo_Symbol\tChromosome\tStart_Position\tVariant_Type\tReference_Allele\tTumor_Seq_Allele2\tTumor_Sample_Barcode
KRAS\t12\t25398284\tSNP\tC\tT\tTCGA-AA-0001-01A-11D
KRAS\t12\t25398284\tSNP\tC\tT\tTCGA-AA-0001-01B-21D
TP53\tchr17\t7577120\tSNP\tG\tA\tTCGA-AA-0001-01A-11D
TP53\t17\t7577121\tDEL\tGAG\t-\tTCGA-AA-0002-01A-11D
TTN\tX\t100\tDNP\tGG\tTT\tTCGA-AA-0002-01A-11D
MTX\tMT\t100\tSNP\tA\tG\tTCGA-AA-0002-01A-11D
BRAF\t23\t200\tSNP\tA\tT\tTCGA-AA-0002-01A-11D
"""


def write(path, text):
    path.write_text(text)
    return path


def count(data, sample, view, name, substitution):
    names = data.genes if view == "gene" else CHROMOSOMES
    table = data.by_gene if view == "gene" else data.by_chromosome
    row, column = data.samples.index(sample), names.index(name) * CLASSES + SUBSTITUTIONS.index(substitution)
    return int(table[[row]].toarray()[0, column])


# ---- names -----------------------------------------------------------------------------------------------------------


def test_each_pyrimidine_class_joins_a_substitution_and_its_other_strand():
    assert other_strand("C>A") == "G>T"
    table = collapse_matrix()
    assert (table.sum(0) == 2).all()
    assert (table.sum(1) == 1).all()
    for name in SUBSTITUTIONS:
        same = table[SUBSTITUTIONS.index(name)] == table[SUBSTITUTIONS.index(other_strand(name))]
        assert same.all()
    assert set(PYRIMIDINE) == {"C>A", "C>G", "C>T", "T>A", "T>C", "T>G"}


def test_builds_and_chromosomes_by_their_many_names():
    assert [build_of(name) for name in ("GRCh37", "hg19", "38", "GRCh38.p13", "mm10")] == [
        "hg19", "hg19", "hg38", "hg38", None,
    ]  # fmt: skip
    assert chromosome_lengths("hg19")[0] == 249250621
    assert chromosome_lengths("hg38")[23] == 57227415
    codes = chromosome_codes(pd.Series(["chr1", "22", "chrX", "23", "24", "MT", "GL000191.1"]))
    assert codes.tolist() == [0, 21, 22, 22, 23, -1, -1]


# ---- single mutations ------------------------------------------------------------------------------------------------


def test_a_maf_gives_counts_of_patients_without_repetitions_indels_and_other_sequences(tmp_path):
    data = read_mutations(write(tmp_path / "PAAD.maf", MAF))
    assert data.samples == ("TCGA-AA-0001", "TCGA-AA-0002")
    assert data.cohorts == ("PAAD", "PAAD")
    assert data.strand == "genomic"
    assert data.totals().tolist() == [2, 1]
    assert count(data, "TCGA-AA-0001", "gene", "KRAS", "C>T") == 1
    assert count(data, "TCGA-AA-0001", "chromosome", "17", "G>A") == 1
    assert count(data, "TCGA-AA-0002", "chromosome", "X", "A>T") == 1


def test_gzip_a_folder_of_files_and_a_column_of_cohorts(tmp_path):
    (tmp_path / "PAAD.maf.gz").write_bytes(gzip.compress(MAF.encode()))
    write(tmp_path / "LUAD.maf", MAF.replace("TCGA-AA", "TCGA-BB"))
    data = read_mutations(tmp_path)
    assert set(zip(data.samples, data.cohorts)) == {
        ("TCGA-AA-0001", "PAAD"), ("TCGA-AA-0002", "PAAD"), ("TCGA-BB-0001", "LUAD"), ("TCGA-BB-0002", "LUAD"),
    }  # fmt: skip
    head, *rows = MAF.splitlines()[1:]
    named = "\n".join([head + "\tcohort", *(row + "\tSKCM" for row in rows)])
    assert read_mutations(write(tmp_path / "all.maf", named)).cohorts == ("SKCM", "SKCM")


def test_older_mafs_with_the_reference_as_second_allele(tmp_path):
    text = (
        "Hugo_Symbol\tChromosome\tStart_position\tReference_Allele\tTumor_Seq_Allele1\tTumor_Seq_Allele2\t"
        "Tumor_Sample_Barcode\nKRAS\t12\t100\tC\tA\tC\tp1\n"
    )
    assert count(read_mutations(write(tmp_path / "x.maf", text)), "p1", "gene", "KRAS", "C>A") == 1


def test_cosmic_counts_on_the_coding_strand(tmp_path):
    text = (
        "GENE_SYMBOL\tCOSMIC_SAMPLE_ID\tPRIMARY_SITE\tMUTATION_CDS\tMUTATION_GENOME_POSITION\n"
        "KRAS_ENST00000311936\tS1\tpancreas\tc.35G>A\t12:25245350-25245350\n"
        "KRAS\tS1\tpancreas\tc.35G>A\t12:25245350-25245350\n"
        "TP53\tS2\tlung\tc.524del\t17:7675088-7675088\n"
        "TP53\tS2\tlung\tc.375+1G>T\t17:7675994-7675994\n"
    )
    data = read_mutations(write(tmp_path / "cosmic.tsv", text))
    assert data.strand == "coding"
    assert data.cohorts == ("pancreas", "lung")
    assert count(data, "S1", "gene", "KRAS", "G>A") == 1
    assert count(data, "S2", "chromosome", "17", "G>T") == 1
    assert data.totals().tolist() == [1, 1]


VCF = """##fileformat=VCFv4.2
##reference=file:///ref/GRCh38.fa
##INFO=<ID=CSQ,Number=.,Type=String,Description="Consequence. Format: Allele|Consequence|SYMBOL">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tNORMAL\tTUMOR
chr7\t140753336\t.\tA\tT\t.\tPASS\tCSQ=T|missense|BRAF\tGT\t0/0\t0/1
chr7\t140753340\t.\tA\tT,G\t.\tPASS\tGENE=BRAF\tGT\t0/0\t1/2
chr7\t140753346\t.\tA\tAT\t.\tPASS\tGENE=BRAF\tGT\t0/0\t0/1
chr7\t140753350\t.\tA\tC\t.\tgermline\tGENE=BRAF\tGT\t0/0\t0/1
"""


def test_a_vcf_is_one_patient_and_a_folder_names_its_cohort(tmp_path):
    (tmp_path / "SKCM").mkdir()
    (tmp_path / "LUAD").mkdir()
    write(tmp_path / "SKCM" / "p1.vcf", VCF)
    write(tmp_path / "LUAD" / "p2.vcf", VCF)
    data = read_mutations(tmp_path)
    assert dict(zip(data.samples, data.cohorts)) == {"p1": "SKCM", "p2": "LUAD"}
    assert data.build == "hg38"
    assert count(data, "p1", "gene", "BRAF", "A>T") == 2
    assert count(data, "p1", "gene", "BRAF", "A>G") == 1
    assert data.totals().tolist() == [3, 3]


def test_columns_of_a_vcf_are_patients_by_their_genotypes(tmp_path):
    events, _ = read_vcf(write(tmp_path / "x.vcf", VCF.replace("NORMAL", "p1").replace("TUMOR", "p2")))
    assert set(events.sample) == {"p2"}


def test_counts_are_the_same_as_those_of_events_in_memory(tmp_path):
    events = Events(
        *(np.array(["a"], object), None, np.array(["G"], object), np.array([0]), np.array([5]), np.array([3]))
    )
    data = events.count(tmp_path, strand="genomic", build=None)
    assert data.cohorts is None
    assert count(data, "a", "gene", "G", "C>T") == 1


# ---- tables of counts ------------------------------------------------------------------------------------------------


@pytest.fixture
def patients(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    counts = {"patient_idx": [0, 1], "sub": ["C>T", "C>T"]}
    frames = {
        "patients": pd.DataFrame({"patient": ["a", "b"], "cohort": ["X", "Y"], "split": ["train", "test"]}),
        "patient_gene_sub": pd.DataFrame({**counts, "gene": ["TP53", "KRAS"], "n": [2, 1]}),
        "patient_chrom_sub": pd.DataFrame({**counts, "chrom": ["17", "X"], "n": [2, 5]}),
    }
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return folder, frames


def test_tables_of_patients(patients):
    folder, _ = patients
    data = read_mutations(folder)
    assert data.columns == {"split": ("train", "test")}
    assert not data.whole_cohorts
    assert count(data, "a", "gene", "TP53", "C>T") == 2
    assert count(data, "b", "chromosome", "X", "C>T") == 5


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("patient_gene_sub", {"patient_idx": [0, 2]}, "names the patient 2, and there are 2"),
        ("patient_gene_sub", {"sub": ["C>T", "N>T"]}, "has the sub 'N>T'"),
        ("patient_gene_sub", {"n": [1.5, 1.0]}, "no whole number"),
        ("patient_gene_sub", {"n": [-1, 1]}, "a count is a number from 0"),
        ("patient_gene_sub", {"n": [np.nan, 1]}, "a count is a number from 0"),
        ("patient_chrom_sub", {"chrom": ["17", "77"]}, "has the chromosome '77'"),
        ("patients", {"patient": ["a", "a"]}, "more than once"),
        ("patients", {"patient": ["a", None]}, "empty at row 2"),
    ],
)
def test_broken_tables_of_patients_are_named(patients, table, change, said):
    folder, frames = patients
    frames[table].assign(**change).to_parquet(folder / f"{table}.parquet")
    with pytest.raises(DataError, match=said):
        read_mutations(folder)


def test_a_missing_table_and_a_missing_column_are_named(patients):
    folder, frames = patients
    (folder / "patient_chrom_sub.parquet").unlink()
    with pytest.raises(DataError, match="patient_chrom_sub"):
        read_mutations(folder)
    frames["patient_chrom_sub"].to_parquet(folder / "patient_chrom_sub.parquet")
    frames["patients"].rename(columns={"patient": "name"}).to_parquet(folder / "patients.parquet")
    with pytest.raises(DataError, match="no column 'patient'"):
        read_mutations(folder)


def cohort_frames():
    rng = np.random.default_rng(0)
    gene, chromosome = [], []
    for cancer in ("NS", "skin", "Lung"):
        for name in ("TP53", "KRAS"):
            gene.append([cancer, 1, name, *rng.integers(1, 50, CLASSES)])
        for name in CHROMOSOMES:
            chromosome.append([cancer, name, *rng.integers(1, 50, CLASSES)])
    return (
        pd.DataFrame(gene, columns=["cancer", "rank", "gene", *SUBSTITUTIONS]),
        pd.DataFrame(chromosome, columns=["cancer", "chrom", *SUBSTITUTIONS]),
    )


def test_names_stay_with_their_rows_in_tables_of_cohorts(tmp_path):
    gene, chromosome = cohort_frames()
    gene.to_parquet(tmp_path / "gene_counts.parquet")
    chromosome.sample(frac=1, random_state=0).to_parquet(tmp_path / "chrom_counts.parquet")
    data = read_mutations(tmp_path)
    assert data.whole_cohorts
    assert data.strand == "coding"
    for cancer, table in chromosome.groupby("cancer"):
        wanted = table[list(SUBSTITUTIONS)].to_numpy().ravel()
        assert (data.by_chromosome[[data.samples.index(cancer)]].toarray()[0] == wanted).all()
    chromosome[chromosome["cancer"] != "NS"].to_parquet(tmp_path / "chrom_counts.parquet")
    with pytest.raises(DataError, match="no rows of the cancer type 'NS'"):
        read_mutations(tmp_path)


def test_the_official_workbooks_give_the_same_counts(tmp_path):
    pytest.importorskip("openpyxl")
    gene, chromosome = cohort_frames()
    books = {"gene1_count.xlsx": (gene, "gene"), "chrom1_count.xlsx": (chromosome, "chrom")}
    for name, (frame, index) in books.items():
        with pd.ExcelWriter(tmp_path / name) as book:
            for cancer in ("skin", "Lung", "NS"):
                sheet = frame[frame["cancer"] == cancer].set_index(index)[list(SUBSTITUTIONS)]
                if index == "chrom":
                    sheet = sheet.div(chromosome_lengths("hg38"), axis=0)
                sheet.rename(columns=lambda word: word.replace(">", "->")).rename_axis(None).to_excel(
                    book, sheet_name=cancer
                )
    data = read_mutations(tmp_path)
    for cancer, table in chromosome.groupby("cancer"):
        wanted = table[list(SUBSTITUTIONS)].to_numpy().ravel()
        assert (data.by_chromosome[[data.samples.index(cancer)]].toarray()[0] == wanted).all()
    whole = (tmp_path / "chrom1_count.xlsx").read_bytes()
    (tmp_path / "chrom1_count.xlsx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole workbook"):
        read_mutations(tmp_path)


def test_long_tables_and_back(tmp_path):
    frame = pd.DataFrame(
        {
            "patient": ["a", "a", "b"], "cohort": ["X", "X", "Y"], "gene": ["TP53", None, "KRAS"],
            "chromosome": ["17", "3", "12"], "substitution": ["C>T", "G->A", "C>A"], "n": [3, 1, 1],
        }
    )  # fmt: skip
    frame.to_parquet(tmp_path / "long.parquet")
    data = read_mutations(tmp_path / "long.parquet")
    assert data.totals().tolist() == [4, 1]
    assert data.genes == ("KRAS", "TP53")
    said = data.to_frame()
    assert said[said["view"] == "chromosome"]["n"].sum() == 5
    frame.assign(cohort=["X", "Y", "Y"]).to_parquet(tmp_path / "long.parquet")
    with pytest.raises(DataError, match="several values of 'cohort'"):
        read_mutations(tmp_path / "long.parquet")


def test_a_vocabulary_orders_genes_and_leaves_unknown_ones_at_zero():
    table = count_table([0, 0], [1, 13], (1, 24))
    data = MutationCounts(("a",), None, ("A", "B"), table, count_table([0], [0], (1, 288)))
    found = data.gene_counts(["B", "Z", "A"]).toarray()[0]
    assert found[1] == 1
    assert found[25] == 1
    assert found.sum() == 2


# ---- broken files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.maf", "", "no rows"),
        ("x.maf", "\n".join(MAF.splitlines()[:2]), "no rows"),
        ("x.maf", MAF.replace("Chromosome", "Chrom"), "no column 'Chromosome'"),
        ("x.maf", MAF.replace("25398284", "somewhere"), "line 3 has the position 'somewhere'"),
        ("x.maf", MAF.replace("TCGA-AA-0001-01B-21D", ""), "line 4 has no sample"),
        ("x.maf", MAF[: MAF.index("BRAF") + 8], "line 9"),
        ("x.maf", "\n".join([*MAF.splitlines()[:2], MAF.splitlines()[5]]), "none of its 1 mutations"),
        ("x.vcf", "chr7\t1\n", "no header line"),
        ("x.vcf", VCF.replace("140753336", "here"), "position 'here'"),
        ("x.bam", "x", "extension '.bam'"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said) as error:
        read_mutations(write(tmp_path / name, text))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_gzip_bytes_and_empty_folders(tmp_path):
    whole = gzip.compress(MAF.encode())
    (tmp_path / "cut.maf.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"gzip file|empty"):
        read_mutations(tmp_path / "cut.maf.gz")
    (tmp_path / "bytes.maf").write_bytes(b"Hugo_Symbol\t\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_mutations(tmp_path / "bytes.maf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file of mutations"):
        read_mutations(tmp_path / "empty")
    with pytest.raises(DataError, match="no such file"):
        read_mutations(tmp_path / "absent")


def test_a_position_beyond_its_chromosome_shows_another_build(tmp_path):
    # The end of chromosome 1 in hg19 lies beyond that of hg38.
    text = MAF.replace("12\t25398284", "1\t249250000")
    path = write(tmp_path / "x.maf", text)
    assert read_mutations(path, build="hg19").build == "hg19"
    with pytest.raises(DataError, match="ends at 248,956,422 in hg38"):
        read_mutations(path, build="hg38")
    events = Events(
        np.array(["a"], object), None, np.array(["G"], object), np.array([-1]), np.array([9**15]), np.array([3])
    )
    check_positions(path, events, "hg38")


def test_strands_builds_and_patients_in_two_cohorts_are_not_mixed(tmp_path):
    write(tmp_path / "a.maf", MAF)
    write(tmp_path / "b.maf", MAF)
    with pytest.raises(DataError, match="stands in the cohorts 'a' and 'b'"):
        read_mutations(tmp_path)
    write(
        tmp_path / "b.maf",
        "GENE_SYMBOL\tCOSMIC_SAMPLE_ID\tMUTATION_CDS\tMUTATION_GENOME_POSITION\nTP53\tS\tc.5G>T\t17:7-7\n",
    )
    (tmp_path / "b.maf").rename(tmp_path / "b.tsv")
    with pytest.raises(DataError, match="mixes strands"):
        read_mutations(tmp_path)


def test_real_mafs_reproduce_the_tables(shared_data):
    folder = shared_data / "mutation_tcga"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    tables = read_mutations(folder)
    place = {name: row for row, name in enumerate(tables.samples)}
    for cohort, patients in (("UVM", 54), ("KICH", 45), ("CHOL", 27)):
        found = read_mutations(folder / f"{cohort}.maf.gz")
        assert len(found) == patients
        same = tables.take([place[name] for name in found.samples])
        assert abs(found.by_chromosome - same.by_chromosome).sum() == 0
        assert abs(found.gene_counts(tables.genes) - same.by_gene).sum() == 0
