"""Readers of graphs: every format, what they refuse, and how edges are divided."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import savemat

from kontrast.data.graphs import (
    Fold,
    canonical,
    contains,
    degrees,
    divide_edges,
    make_graph,
    pair_keys,
    read_graph,
    sample_non_edges,
)
from kontrast.errors import DataError
from kontrast.randomness import numpy_rng

TRIANGLE = np.array([[0, 1], [1, 2], [2, 0], [1, 0], [3, 3], [3, 2]])
WANTED = [[0, 1], [0, 2], [1, 2], [2, 3]]
FEATURES = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], np.float32)


def same(graph, *, features=FEATURES, labels=None):
    assert graph.edges.tolist() == WANTED
    if features is None:
        assert graph.features is None
    else:
        np.testing.assert_array_equal(graph.features.toarray(), features)
    if labels is not None:
        assert list(graph.labels) == labels


# ---- edge lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "separator"), [("g.csv", ","), ("g.tsv", "\t")])
def test_a_table_of_edges(tmp_path, name, separator):
    text = "\n".join(separator.join(row) for row in [("source", "weight", "target"), ("b", "1", "a"), ("a", "2", "c")])
    (tmp_path / name).write_text(text + "\n")
    graph = read_graph(tmp_path / name)
    assert graph.ids == ("a", "b", "c")
    assert graph.edges.tolist() == [[0, 1], [0, 2]]


def test_parquet_and_numbers_in_order_of_numbers(tmp_path):
    pd.DataFrame({"src": [10, 9, 2], "dst": [9, 2, 10]}).to_parquet(tmp_path / "g.parquet")
    assert read_graph(tmp_path / "g.parquet").ids == ("2", "9", "10")


def test_plain_text_has_comments_and_no_header(tmp_path):
    (tmp_path / "g.txt").write_text("# Nodes: 3\n% more\n0 1\n1\t2\n2   0\n")
    assert read_graph(tmp_path / "g.txt").edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    with gzip.open(tmp_path / "g.txt.gz", "wt") as stream:
        stream.write("x y\ny z\n")
    assert read_graph(tmp_path / "g.txt.gz").ids == ("x", "y", "z")


def test_loops_and_repetitions_are_counted():
    graph = make_graph(TRIANGLE)
    same(graph, features=None)
    assert graph.dropped == {"self-loops": 1, "repetitions": 1}
    assert degrees(graph.edges, 4).tolist() == [2, 2, 3, 1]


def test_a_folder_with_nodes(tmp_path):
    (tmp_path / "edges.csv").write_text("source,target\nann,bob\nbob,cid\n")
    (tmp_path / "nodes.csv").write_text(
        'id,label,age,likes\nann,x,3,"[1, 0]"\nbob,y,4,"[0, 1]"\ncid,x,5,"[0, 0]"\ndot,,6,"[1,1]"\n'
    )
    with pytest.raises(DataError, match="label"):
        read_graph(tmp_path)
    text = (tmp_path / "nodes.csv").read_text().replace("dot,,", "dot,z,")
    (tmp_path / "nodes.csv").write_text(text)
    graph = read_graph(tmp_path)
    assert graph.n == 4
    assert graph.labels == ("x", "y", "x", "z")
    assert graph.features.toarray().tolist() == [[3, 1, 0], [4, 0, 1], [5, 0, 0], [6, 1, 1]]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"g.csv": "a,b,c\n1,2,3\n"}, "not said which two"),
        ({"g.csv": "1,2\n3,4\n"}, "names of columns belong"),
        ({"g.txt": "a b\nc\n"}, "line 2 has 1 words"),
        ({"g.txt": "# only\n"}, "besides comments"),
        ({"g.csv": "source,target\na,a\n"}, "no edges"),
        ({"g.doc": "x"}, "no graph format"),
        ({"g.csv": ""}, "empty"),
        ({"edges.csv": "source,target\na,b\nb,z\n", "nodes.csv": "id\na\nb\n"}, "line 3 names the node 'z'"),
        ({"edges.csv": "source,target\na,b\n", "nodes.csv": "id\na\nb\na\n"}, "the node 'a' twice"),
        ({"edges.csv": "source,target\na,b\n", "edges.tsv": "x\ty\na\tb\n"}, "leave one table"),
        ({"readme.md": "x", "other": "y"}, "no known graph"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, files, sentence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path if len(files) > 1 else tmp_path / next(iter(files))
    with pytest.raises(DataError, match=sentence):
        read_graph(path)


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "here.csv").write_text("source,target\na,b\n")
    with pytest.raises(DataError, match=r"beside it are here\.csv"):
        read_graph(tmp_path / "there.csv")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edges": np.zeros((2, 3), int)}, "shape"),
        ({"edges": np.array([[0.0, 1.0]])}, "integer"),
        ({"n": 2}, "node 3 of 2"),
        ({"edges": np.array([[0, -1]]), "n": 3}, "node -1"),
        ({"ids": ["a", "b", "a", "c"]}, "'a' twice"),
        ({"features": np.ones((3, 2))}, r"\(3, 2\) for 4 nodes"),
        ({"features": np.array([[1.0], [np.nan], [0], [0]])}, "not finite at node 1"),
        ({"labels": ["x"]}, "1 labels"),
    ],
)
def test_arrays_are_checked(changes, sentence):
    with pytest.raises(DataError, match=sentence):
        make_graph(**{"edges": TRIANGLE, **changes})


# ---- archives --------------------------------------------------------------------------------------------------------


def npz(path, **changes):
    csr = sparse.csr_array(FEATURES)
    arrays = {
        "edges": np.array(WANTED, np.uint16), "num_nodes": 4, "y": np.array([0, 1, -1, 1]),
        "x_data": csr.data, "x_indices": csr.indices, "x_indptr": csr.indptr, "x_shape": np.array(csr.shape),
        "s0_train": np.array([0, 1]), "s0_valid": np.array([2]), "s0_test": np.array([3]),
        "s0_valid_neg": np.array([[0, 3]]), "s0_test_neg": np.array([[3, 1]]),
        "s0_heart_test": np.array([[0, 1, 0, 1]]),
        **changes,
    }  # fmt: skip
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_npz_with_folds_and_hard_negatives(tmp_path):
    graph = read_graph(npz(tmp_path / "g.npz"))
    same(graph, labels=["0", "1", "", "1"])
    fold = graph.folds[0]
    assert fold.test.tolist() == [[2, 3]]
    assert fold.test_negatives.tolist() == [[1, 3]]
    assert fold.test_hard.tolist() == [[[2, 0], [2, 1], [0, 3], [1, 3]]]
    assert fold.valid_hard is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edges": None}, "no 'edges'"),
        ({"s0_test": np.array([0])}, "in the train and in the test part"),
        ({"s0_test_neg": np.array([[1, 0]])}, "true edges among"),
        ({"s0_test": np.array([9])}, "row 9 of 4"),
        ({"s0_valid": None}, "no s0_valid"),
        ({"x_indices": np.array([0, 1, 1, 9])}, "no CSR matrix"),
        ({"x_indptr": None, "x_data": None}, None),
        ({"num_nodes": np.array([4, 4])}, "num_nodes"),
        ({"s0_heart_test": np.array([[0, 1], [1, 0]])}, "1 edges"),
        ({"ids": np.array([{"a": 1}], dtype=object)}, "safely"),
    ],
)
def test_npz_faults(tmp_path, changes, sentence):
    path = npz(tmp_path / "g.npz", **changes)
    if sentence is None:
        assert read_graph(path).features is None
        return
    with pytest.raises(DataError, match=sentence):
        read_graph(path)


def test_npz_of_matrices(tmp_path):
    links = sparse.csr_array((np.ones(6), TRIANGLE.T), shape=(4, 4))
    attributes = sparse.csr_array(FEATURES)
    arrays = {}
    for name, matrix in (("adj", links), ("attr", attributes)):
        arrays |= {f"{name}_data": matrix.data, f"{name}_indices": matrix.indices, f"{name}_indptr": matrix.indptr}
        arrays[f"{name}_shape"] = np.array(matrix.shape)
    np.savez(tmp_path / "g.npz", **arrays, labels=np.array([1, 2, 3, 4]))
    same(read_graph(tmp_path / "g.npz"), labels=["1", "2", "3", "4"])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_mat(tmp_path, compressed, full):
    net = sparse.csc_matrix((np.ones(6), TRIANGLE.T), shape=(4, 4))
    held = {"net": net.toarray() if full else net, "attrb": FEATURES, "words": "of no use"}
    savemat(tmp_path / "g.mat", held, do_compression=compressed)
    same(read_graph(tmp_path / "g.mat"))


def test_mat_faults(tmp_path):
    for held, sentence in (
        ({"other": np.ones((2, 2))}, "no numeric variable 'net'"),
        ({"net": np.ones((2, 3))}, r"shape \(2, 3\)"),
        ({"net": np.ones((2, 2)) * 1j}, "no real matrix"),
    ):
        savemat(tmp_path / "g.mat", held)
        with pytest.raises(DataError, match=sentence):
            read_graph(tmp_path / "g.mat")
    (tmp_path / "g.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200))
    with pytest.raises(DataError, match="-v7"):
        read_graph(tmp_path / "g.mat")


def test_torch_dictionaries(tmp_path):
    held = {"edge_index": torch.tensor(TRIANGLE.T), "x": torch.tensor(FEATURES), "y": torch.tensor([3, 2, 1, -1])}
    torch.save(held, tmp_path / "g.pt")
    same(read_graph(tmp_path / "g.pt"), labels=["3", "2", "1", ""])
    torch.save({"x": torch.ones(2)}, tmp_path / "h.pt")
    with pytest.raises(DataError, match="edge_index"):
        read_graph(tmp_path / "h.pt")


def test_a_pyg_data_object_is_read_without_pyg(tmp_path, monkeypatch):
    import sys
    import types

    names = ["", ".data", ".data.data", ".data.storage"]
    modules = {name: types.ModuleType(name) for name in (f"torch_geometric{rest}" for rest in names)}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    storage = type("GlobalStorage", (), {"__module__": "torch_geometric.data.storage"})
    data = type("Data", (), {"__module__": "torch_geometric.data.data"})
    modules["torch_geometric.data.storage"].GlobalStorage = storage
    modules["torch_geometric.data.data"].Data = data
    held, whole = storage(), data()
    held.__dict__["_mapping"] = {"edge_index": torch.tensor(TRIANGLE.T), "x": torch.tensor(FEATURES)}
    whole.__dict__["_store"] = held
    torch.save((whole, None), tmp_path / "g.pt")
    monkeypatch.undo()
    same(read_graph(tmp_path / "g.pt"))


class Harm:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["g.pt", "ind.cora.graph"])
def test_pickles_that_run_code_are_refused_and_run_nothing(tmp_path, name):
    target = tmp_path / "harmed"
    if name.endswith(".pt"):
        torch.save({"edge_index": Harm(target)}, tmp_path / name)
    else:
        planetoid(tmp_path)
        (tmp_path / name).write_bytes(pickle.dumps({0: [1], 1: [Harm(target)]}))
    with pytest.raises(DataError, match=r"mkdir|posix"):
        read_graph(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        b"P1\n.",
    ],
)
def test_other_names_in_pickles_are_refused(tmp_path, body):
    planetoid(tmp_path)
    (tmp_path / "ind.cora.graph").write_bytes(body)
    with pytest.raises(DataError, match="pickle"):
        read_graph(tmp_path / "ind.cora.graph")


def planetoid(folder, protocol=2):
    from collections import defaultdict

    links = defaultdict(list, {0: [1, 2], 1: [0, 2], 2: [0, 1, 3], 3: [2, 3]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = {"graph": links, "allx": sparse.csr_matrix(FEATURES[:2]), "tx": sparse.csr_matrix(FEATURES[[3, 2]])}
        parts |= {"ally": np.eye(2, dtype=np.int32)[[0, 1]], "ty": np.eye(2, dtype=np.int32)[[1, 0]]}
        for name, value in parts.items():
            (folder / f"ind.cora.{name}").write_bytes(pickle.dumps(value, protocol=protocol))
    (folder / "ind.cora.test.index").write_text("3\n2\n")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_planetoid(tmp_path, protocol):
    planetoid(tmp_path, protocol)
    same(read_graph(tmp_path / "ind.cora.graph"), labels=["0", "1", "0", "1"])
    same(read_graph(tmp_path))


def test_planetoid_with_missing_test_rows_and_missing_files(tmp_path):
    planetoid(tmp_path)
    (tmp_path / "ind.cora.test.index").write_text("5\n2\n")
    graph = read_graph(tmp_path)
    assert graph.n == 6
    assert not graph.features[[3, 4]].toarray().any()
    (tmp_path / "ind.cora.tx").unlink()
    with pytest.raises(DataError, match=r"ind\.cora\.tx"):
        read_graph(tmp_path)


def test_graphml(tmp_path):
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph([(0, 1), (1, 2), (0, 2), (2, 3), (3, 3)])
    for node in graph:
        graph.nodes[node].update(label="ab"[node % 2], one=float(FEATURES[node, 0]), two=int(FEATURES[node, 1]))
    networkx.write_graphml(graph, tmp_path / "g.graphml")
    read = read_graph(tmp_path / "g.graphml")
    same(read, features=FEATURES[:, :2], labels=["a", "b", "a", "b"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><graphml><graph/></graphml>', "line 1: declares a document type"),
        ("<graphml><graph><edge source='a'/></graph></graphml>", "no 'target'"),
        ("<graphml><graph>", "line 1: is not well-formed"),
        ("<graphml></graphml>", "no <graph>"),
        ("<graphml><graph/><graph/></graphml>", "second"),
    ],
)
def test_graphml_faults(tmp_path, text, sentence):
    (tmp_path / "g.graphml").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_graph(tmp_path / "g.graphml")


# ---- folders ---------------------------------------------------------------------------------------------------------


def heart(folder):
    for name, rows in (
        ("train_pos", "0\t1\n0\t2\n2\t0\n"),
        ("valid_pos", "1\t2\n"),
        ("test_pos", "3\t2\n"),
        ("test_neg", "3\t1\n"),
    ):
        (folder / f"{name}.txt").write_text(rows)
    torch.save({"entity_embedding": torch.tensor(FEATURES)}, folder / "gnn_feature")
    np.save(folder / "heart_test_samples.npy", np.array([[[3, 0], [1, 2]]]))


def test_heart(tmp_path):
    heart(tmp_path)
    graph = read_graph(tmp_path)
    same(graph)
    assert graph.folds[0].train.tolist() == [[0, 1], [0, 2]]
    assert graph.folds[0].test_hard.shape == (1, 2, 2)
    (tmp_path / "valid_pos.txt").write_text("1\tx\n")
    with pytest.raises(DataError, match=r"valid_pos\.txt: line 1 holds '1\sx'"):
        read_graph(tmp_path)


def test_musae(tmp_path):
    (tmp_path / "zoo_edges.csv").write_text("id1,id2\n" + "".join(f"{u},{v}\n" for u, v in TRIANGLE))
    listed = {str(node): np.flatnonzero(row).tolist() for node, row in enumerate(FEATURES)}
    (tmp_path / "zoo_features.json").write_text(json.dumps(listed))
    (tmp_path / "zoo_target.csv").write_text("days,mature,new_id\n1,True,1\n2,False,0\n")
    same(read_graph(tmp_path), labels=["False", "True", "", ""])


@pytest.mark.parametrize("as_lists", [True, False])
def test_geom_gcn(tmp_path, as_lists):
    rows = [",".join(map(str, row.astype(int) if as_lists else np.flatnonzero(row))) for row in FEATURES[:3]]
    (tmp_path / "out1_graph_edges.txt").write_text("node_id1\tnode_id2\n0\t1\n1\t2\n2\t0\n")
    lines = "".join(f"{node}\t{rows[node]}\t{node % 2}\n" for node in (2, 0, 1))
    (tmp_path / "out1_node_feature_label.txt").write_text("node_id\tfeature\tlabel\n" + lines)
    graph = read_graph(tmp_path)
    assert graph.edges.tolist() == WANTED[:3]
    np.testing.assert_array_equal(graph.features.toarray(), FEATURES[:3])
    assert graph.labels == ("0", "1", "0")


def test_ogb(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "split" / "time").mkdir(parents=True)
    for name, rows in (("edge", "0,1\n2,0\n"), ("node-feat", "1,0,0\n0,1,0\n0,1,1\n0,0,0\n"), ("num-node-list", "4\n")):
        with gzip.open(tmp_path / "raw" / f"{name}.csv.gz", "wt") as stream:
            stream.write(rows)
    split = {"train": [[0, 1], [2, 0]], "valid": [[2, 1], [0, 1]], "test": [[2, 3]]}
    for name, pairs in split.items():
        held = {"edge": np.array(pairs)} if name == "valid" else {"edge": torch.tensor(pairs)}
        torch.save({**held, "edge_neg": np.array([[0, 3]])}, tmp_path / "split" / "time" / f"{name}.pt")
    graph = read_graph(tmp_path)
    same(graph)
    assert graph.folds[0].valid.tolist() == [[1, 2]], "an edge that is trained on is not validated on"
    assert graph.folds[0].test_negatives.tolist() == [[0, 3]]


@pytest.mark.parametrize("make", ["npz", "mat", "pt", "planetoid", "graphml", "heart"])
def test_damaged_files_give_a_sentence(tmp_path, make):
    if make == "npz":
        files = [npz(tmp_path / "g.npz")]
    elif make == "mat":
        savemat(tmp_path / "g.mat", {"net": np.eye(4)[::-1].copy()})
        files = [tmp_path / "g.mat"]
    elif make == "pt":
        torch.save({"edge_index": torch.tensor(TRIANGLE.T)}, tmp_path / "g.pt")
        files = [tmp_path / "g.pt"]
    elif make == "graphml":
        (tmp_path / "g.graphml").write_text("<graphml><graph><edge source='a' target='b'/></graph></graphml>")
        files = [tmp_path / "g.graphml"]
    else:
        (planetoid if make == "planetoid" else heart)(tmp_path)
        files = sorted(tmp_path.iterdir())
    rng = np.random.default_rng(0)
    for file in files:
        whole = file.read_bytes()
        mixed = bytearray(whole)
        for place in rng.integers(len(whole), size=max(1, len(whole) // 20)):
            mixed[place] = rng.integers(256)
        for damaged in (b"", whole[: len(whole) // 2], rng.bytes(len(whole)), bytes(mixed), whole[:20] + rng.bytes(30)):
            file.write_bytes(damaged)
            sentence = ""
            try:
                read_graph(file if len(files) == 1 else tmp_path)
            except DataError as error:
                sentence = str(error)
            assert "\n" not in sentence
            assert len(sentence) < 600
        file.write_bytes(whole)


# ---- dividing --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(8, 60), st.integers(0, 1000))
def test_division_is_whole_disjoint_and_repeatable(n, seed):
    rng = np.random.default_rng(seed)
    graph = make_graph(np.concatenate([rng.integers(n, size=(2 * n, 2)), [[0, 1], [n - 1, 0]]]), n=n)
    if len(graph.edges) < 10 or n * (n - 1) // 2 - len(graph.edges) < len(graph.edges):
        return
    fold, again = divide_edges(graph, seed), divide_edges(graph, seed)
    keys = [pair_keys(part, n) for part in (fold.train, fold.valid, fold.test)]
    assert sorted(np.concatenate(keys)) == pair_keys(graph.edges, n).tolist()
    negatives = np.concatenate([fold.valid_negatives, fold.test_negatives])
    assert not contains(pair_keys(graph.edges, n), pair_keys(negatives, n)).any()
    assert len(np.unique(pair_keys(negatives, n))) == len(negatives)
    assert (negatives[:, 0] < negatives[:, 1]).all()
    assert len(fold.test) == max(1, int(0.1 * len(graph.edges))) == len(fold.test_negatives)
    assert np.array_equal(fold.test, again.test)
    assert np.array_equal(fold.test_negatives, again.test_negatives)


def test_too_small_and_too_dense_graphs_are_refused():
    with pytest.raises(DataError, match="3 edges"):
        divide_edges(make_graph(np.array([[0, 1], [1, 2], [2, 3]])), 0)
    full = np.stack(np.triu_indices(6, 1), axis=1)
    with pytest.raises(DataError, match="less dense"):
        divide_edges(make_graph(full), 0)


def test_non_edges_are_uniform():
    forbidden = pair_keys(np.array([[0, 1], [2, 3]]), 5)
    drawn = sample_non_edges(5, 8000, np.sort(forbidden), numpy_rng(0), distinct=False)
    _, counts = np.unique(pair_keys(drawn, 5), return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 850
    assert len(sample_non_edges(5, 8, np.sort(forbidden), numpy_rng(0))) == 8


def test_keys_know_no_direction():
    assert pair_keys(np.array([[3, 1], [1, 3]]), 9).tolist() == [12, 12]
    assert canonical(np.array([[3, 1], [1, 3], [2, 2]]), 9).tolist() == [[1, 3]]
    assert isinstance(make_graph(np.array([[0, 1]]), folds=[]).folds, tuple)
    assert Fold(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))).test_hard is None
