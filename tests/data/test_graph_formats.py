"""Graph files as the original tools write them, and broken variants of each: every one gives one clear sentence."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import defaultdict
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.io import savemat

from kontrast.data.graphs import read_graph
from kontrast.errors import DataError

EDGES = np.array([[0, 1], [1, 2], [2, 0], [1, 0], [3, 3], [3, 2]])
WANTED = [[0, 1], [0, 2], [1, 2], [2, 3]]
FEATURES = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], np.float32)


def same(graph, *, features=True, labels=None):
    assert graph.edges.tolist() == WANTED
    if features:
        np.testing.assert_array_equal(graph.features.toarray(), FEATURES)
    if labels is not None:
        assert list(graph.labels) == labels


def sentence_of(path):
    """The one sentence with which a file is refused."""
    with pytest.raises(DataError) as caught:
        read_graph(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    assert "Traceback" not in text
    return text


class Harm:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


# ---- planetoid: cPickle of Python 2, protocol 2, old NumPy and SciPy -------------------------------------------------


class Python2(pickle._Pickler):
    """Writes what Python 2 wrote: byte strings without a detour, modules by the names of that time."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str8(self, value):
        """BINSTRING, the text of Python 2."""
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_str8

    def save_global(self, obj, name=None):
        """GLOBAL with the module's old name."""
        name = name or obj.__qualname__
        module = {"builtins": "__builtin__", "scipy.sparse._csr": "scipy.sparse.csr", "copyreg": "copy_reg"}.get(
            obj.__module__, obj.__module__
        )
        self.write(pickle.GLOBAL + f"{module.replace('numpy._core', 'numpy.core')}\n{name}\n".encode())
        self.memoize(obj)

    dispatch[type] = dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


def python2(value):
    """Bytes of cPickle.dump(value, protocol=2) under Python 2."""
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(value)
    return stream.getvalue()


def planetoid(folder, **changes):
    links = defaultdict(list, {0: [1, 2, 1], 1: [0, 2], 2: [0, 1, 3], 3: [2, 3]})
    parts = {
        "graph": links,
        "x": sparse.csr_matrix(FEATURES[:1]),
        "allx": sparse.csr_matrix(FEATURES[:2]),
        "tx": sparse.csr_matrix(FEATURES[[3, 2]]),
        "y": np.eye(2, dtype=np.int32)[[0]],
        "ally": np.eye(2, dtype=np.int32)[[0, 1]],
        "ty": np.eye(2, dtype=np.int32)[[1, 0]],
        **changes,
    }
    for name, value in parts.items():
        (folder / f"ind.toy.{name}").write_bytes(value if isinstance(value, bytes) else python2(value))
    (folder / "ind.toy.test.index").write_text("3\n2\n")
    return folder / "ind.toy.graph"


def test_planetoid_files_of_python_2(tmp_path):
    path = planetoid(tmp_path)
    raw = path.read_bytes()
    assert raw.startswith(b"\x80\x02ccollections\ndefaultdict\n")
    assert b"c__builtin__\nlist" in raw
    assert b"scipy.sparse.csr\ncsr_matrix" in (tmp_path / "ind.toy.allx").read_bytes()
    assert b"numpy.core.multiarray\n_reconstruct" in (tmp_path / "ind.toy.allx").read_bytes()
    same(read_graph(path), labels=["0", "1", "0", "1"])
    same(read_graph(tmp_path))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"graph": [[0, 1]]}, "not a dictionary"),
        ({"graph": {0: 1}}, "no lists of numbers"),
        ({"graph": {0: ["b"]}}, "no lists of numbers"),
        ({"graph": {0: [], 1: []}}, "no edges"),
        ({"graph": {0: [-1]}}, "node -1"),
        ({"graph": {0: [0]}}, "no edges"),
        ({"graph": {0: [99]}}, "node 99"),
        ({"allx": FEATURES[:2]}, "not a CSR matrix"),
        ({"tx": sparse.csr_matrix(FEATURES[:1])}, "for 2 test nodes"),
        ({"tx": sparse.csr_matrix(FEATURES[:2, :2])}, "features"),
        ({"allx": sparse.csr_matrix([[np.nan, 0, 0], [0, 1, 0]])}, "not finite"),
        ({"graph": python2({0: [1]})[:9]}, "whole pickle"),
        ({"allx": python2(sparse.csr_matrix(FEATURES))[:200]}, "whole pickle"),
        ({"ally": b""}, "whole pickle"),
        ({"ally": np.zeros((0, 2), np.int32), "ty": python2("text")}, "ty"),
        ({"ally": np.array([{}], dtype=object)}, "asks for"),
    ],
)
def test_broken_planetoid_files(tmp_path, changes, sentence):
    assert sentence in sentence_of(planetoid(tmp_path, **changes))


@pytest.mark.parametrize("part", ["graph", "allx", "tx", "ally"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, part):
    target = tmp_path / "harmed"
    path = planetoid(tmp_path, **{part: pickle.dumps({0: [1], 1: Harm(target)}, protocol=2)})
    assert "may run code" in sentence_of(path)
    assert not target.exists()


# ---- PyTorch: dictionaries and PyG's Data ----------------------------------------------------------------------------


PYG = {
    "torch_geometric.data.data": ("Data", "DataEdgeAttr", "DataTensorAttr"),
    "torch_geometric.data.storage": ("GlobalStorage",),
}


def save_pyg(path, monkeypatch, collated=True, **values):
    """What PyG's ``torch.save(self.collate([data]))`` and ``torch.save(data)`` write, without PyG."""
    classes = {}
    for module_name, names in PYG.items():
        for number in range(1, module_name.count(".") + 2):
            whole = ".".join(module_name.split(".")[:number])
            monkeypatch.setitem(sys.modules, whole, sys.modules.get(whole) or types.ModuleType(whole))
        for name in names:
            # A storage pickles its whole dictionary, as PyG's __getstate__ does; its parent is left out.
            body = {"__module__": module_name, "__getstate__": lambda self: {**self.__dict__}}
            classes[name] = type(name, (), body)
            setattr(sys.modules[module_name], name, classes[name])
    store, data = classes["GlobalStorage"](), classes["Data"]()
    store.__dict__.update({"_mapping": values, "_parent": None})
    data.__dict__["_store"] = store
    slices = {name: torch.tensor([0, 4]) for name in values}
    torch.save((data, slices, classes["Data"]) if collated == "new" else (data, slices) if collated else data, path)
    monkeypatch.undo()


def pyg_values(**changes):
    values = {"x": torch.tensor(FEATURES), "edge_index": torch.tensor(EDGES.T), "y": torch.tensor([1, 0, 1, 0])}
    masks = {f"{part}_mask": torch.tensor([True, False, False, True]) for part in ("train", "val", "test")}
    return {**values, **masks, **changes}


@pytest.mark.parametrize("collated", [True, False])
def test_pyg_data(tmp_path, monkeypatch, collated):
    save_pyg(tmp_path / "data.pt", monkeypatch, collated, **pyg_values())
    same(read_graph(tmp_path / "data.pt"), labels=["1", "0", "1", "0"])


def test_pyg_data_whose_class_is_stored_too(tmp_path, monkeypatch):
    save_pyg(tmp_path / "data.pt", monkeypatch, "new", **pyg_values())
    same(read_graph(tmp_path / "data.pt"))


def test_newer_pyg_stores_a_dictionary(tmp_path):
    torch.save((pyg_values(), {"x": torch.tensor([0, 4])}, {}), tmp_path / "data.pt")
    same(read_graph(tmp_path / "data.pt"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edge_index": torch.tensor(EDGES)}, "edge_index"),
        ({"edge_index": torch.tensor(EDGES.T).float()}, "edge_index"),
        ({"edge_index": torch.zeros((2, 0), dtype=torch.long)}, "no edges"),
        ({"edge_index": torch.tensor([[0, -2], [1, 3]])}, "node -2"),
        ({"edge_index": torch.tensor([[0, 7], [1, 3]])}, "node 7 of 4"),
        ({"x": torch.full((4, 3), float("nan"))}, "not finite at node 0"),
        ({"x": torch.ones(4, 0)}, r"shape (4, 0)"),
        ({"num_nodes": 9, "y": None}, "features of shape (4, 3) for 9 nodes"),
        ({"num_nodes": -1, "x": None, "y": None}, "node"),
    ],
)
def test_broken_tensors(tmp_path, changes, sentence):
    torch.save(pyg_values(**changes), tmp_path / "g.pt")
    assert sentence in sentence_of(tmp_path / "g.pt")


def test_broken_pytorch_files(tmp_path):
    path = tmp_path / "g.pt"
    torch.save(pyg_values(), path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:30], b"PK\x03\x04" + bytes(50), b"text"):
        path.write_bytes(damaged)
        sentence_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("g/data.pkl", pickle.dumps({"edge_index": 1}))
    sentence_of(path)
    target = tmp_path / "harmed"
    torch.save((pyg_values(), Harm(target)), path)
    assert "safely" in sentence_of(path)
    torch.save({"edge_index": Harm(target)}, path, _use_new_zipfile_serialization=False)
    assert "safely" in sentence_of(path)
    assert not target.exists()


# ---- MATLAB ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.int32, bool])
def test_adjacency_as_matlab_saves_it(tmp_path, dtype):
    dense = sparse.coo_array((np.ones(6), EDGES.T), shape=(4, 4)).toarray() > 0
    savemat(tmp_path / "g.mat", {"net": dense.astype(dtype), "group": np.eye(4)}, do_compression=True)
    same(read_graph(tmp_path / "g.mat"), features=False)


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ({"A": np.eye(4)}, "no numeric variable 'net'"),
        ({"net": "text"}, "no numeric variable 'net'"),
        ({"net": {"a": 1}}, "no numeric variable 'net'"),
        ({"net": np.zeros((4, 4))}, "no edges"),
        ({"net": np.eye(4)}, "no edges"),
        ({"net": np.ones((4, 3))}, "square"),
        ({"net": np.ones((2, 2, 2))}, "two dimensions"),
        ({"net": np.ones((4, 4)), "attrb": np.ones((3, 2))}, "shape (3, 2) for 4 nodes"),
        ({"net": np.ones((4, 4)), "attrb": np.full((4, 2), np.nan)}, "not finite"),
        ({"net": sparse.csc_matrix((0, 0))}, "no edges"),
    ],
)
def test_broken_matlab_variables(tmp_path, held, sentence):
    savemat(tmp_path / "g.mat", held)
    assert sentence in sentence_of(tmp_path / "g.mat")


def test_a_matlab_file_of_level_4_or_cut_is_refused(tmp_path):
    path = tmp_path / "g.mat"
    savemat(path, {"net": np.ones((4, 4))}, format="4")
    assert "level 5" in sentence_of(path)
    savemat(path, {"net": sparse.csc_matrix(np.ones((40, 40)))}, do_compression=False)
    whole = path.read_bytes()
    for size in range(8, len(whole), 97):
        path.write_bytes(whole[:size])
        sentence_of(path)


# ---- folders ---------------------------------------------------------------------------------------------------------


def musae(folder, **changes):
    files = {
        "zoo_edges.csv": "id1,id2\n0,1\n1,2\n2,0\n3,2\n",
        "zoo_features.json": json.dumps({str(node): np.flatnonzero(row).tolist() for node, row in enumerate(FEATURES)}),
        "zoo_target.csv": "id,facebook_id,page_name,page_type\n0,145647315578475,x,tvshow\n1,2,y,company\n",
        **changes,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_musae(tmp_path):
    same(read_graph(musae(tmp_path)), labels=["tvshow", "company", "", ""])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"zoo_edges.csv": "id1,id2\n"}, "zoo_edges.csv"),
        ({"zoo_edges.csv": "id1,id2\n0,x\n"}, "zoo_edges.csv"),
        ({"zoo_edges.csv": "id1,id2\n0,1.5\n"}, "zoo_edges.csv"),
        ({"zoo_edges.csv": "id1,id2\n0,-1\n"}, "node -1"),
        ({"zoo_edges.csv": "id1,id2\n1,1\n"}, "no edges"),
        ({"zoo_edges.csv": "a,b,c\n1,1,1\n"}, "not said which two"),
        ({"zoo_features.json": "[1, 2]"}, "no object"),
        ({"zoo_features.json": '{"0": 3}'}, "no lists of numbers"),
        ({"zoo_features.json": '{"a": [3]}'}, "no lists of numbers"),
        ({"zoo_features.json": '{"0": [-3]}'}, "negative"),
        ({"zoo_features.json": '{"0": [1'}, "zoo_features.json"),
        ({"zoo_features.json": '{"0": []}'}, "no features"),
    ],
)
def test_broken_musae_folders(tmp_path, changes, sentence):
    assert sentence in sentence_of(musae(tmp_path, **changes))


def geom_gcn(folder, **changes):
    rows = "".join(f"{node}\t{','.join(map(str, row.astype(int)))}\t{node % 2}\n" for node, row in enumerate(FEATURES))
    files = {
        "out1_graph_edges.txt": "node_id\tnode_id\n0\t1\n1\t2\n2\t0\n3\t2\n",
        "out1_node_feature_label.txt": f"node_id\tfeature\tlabel\n{rows}",
        **changes,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"out1_graph_edges.txt": "node_id\tnode_id\n"}, "no lines below its header"),
        ({"out1_graph_edges.txt": "h\th\n0\t9\n"}, "node 9 of 4"),
        ({"out1_graph_edges.txt": "h\th\n0 1\n"}, "line 2 has 1 cells"),
        ({"out1_graph_edges.txt": "h\th\n0\t-1\n"}, "line 2 holds '-1'"),
        ({"out1_graph_edges.txt": "h\th\n2\t2\n"}, "no edges"),
        ({"out1_node_feature_label.txt": "h\th\th\n0\t1\t0\n0\t1\t0\n"}, "do not number the nodes"),
        ({"out1_node_feature_label.txt": "h\th\th\n0\tnan\t0\n"}, "line 2 holds 'nan'"),
        ({"out1_node_feature_label.txt": "h\th\th\n0\t\t0\n"}, "line 2 holds ''"),
    ],
)
def test_geom_gcn_folders(tmp_path, changes, sentence):
    folder = geom_gcn(tmp_path, **changes)
    if sentence is None:
        same(read_graph(folder), labels=["0", "1", "0", "1"])
    else:
        assert sentence in sentence_of(folder)


def ogb(folder, raw=None, split=None, protocol=4, zipped=True):
    """The layout after ``LinkPropPredDataset`` has unpacked it: raw csv.gz without header, a split as torch files."""
    raw = {
        "edge": "0,1\n0,2\n1,2\n",
        "node-feat": "1,0,0\n0,1,0\n0,1,1\n0,0,0\n",
        "num-node-list": "4\n",
        "num-edge-list": "3\n",
        **(raw or {}),
    }
    (folder / "raw").mkdir()
    (folder / "split" / "time").mkdir(parents=True)
    for name, text in raw.items():
        with gzip.open(folder / "raw" / f"{name}.csv.gz", "wt") as stream:
            stream.write(text)
    parts = {
        "train": {"edge": np.array([[0, 1], [2, 0], [1, 2]]), "weight": np.ones(3), "year": np.full(3, 2010)},
        "valid": {"edge": np.array([[2, 3]]), "edge_neg": np.array([[0, 3]])},
        "test": {"edge": np.array([[1, 0]]), "edge_neg": np.array([[3, 1]])},
        **(split or {}),
    }
    for name, held in parts.items():
        path = folder / "split" / "time" / f"{name}.pt"
        torch.save(held, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return folder


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_ogb(tmp_path, protocol, zipped):
    graph = read_graph(ogb(tmp_path, protocol=protocol, zipped=zipped))
    same(graph)
    assert graph.folds[0].valid.tolist() == [[2, 3]]
    assert len(graph.folds[0].test) == 0, "an edge that is trained on is not tested on"


@pytest.mark.parametrize(
    ("raw", "split", "sentence"),
    [
        ({"edge": "0,x\n"}, {}, "edge.csv.gz"),
        ({"edge": "0,1,2\n"}, {}, "edge"),
        ({"edge": "0,-1\n"}, {}, "node -1"),
        ({"edge": "0,9\n"}, {}, "node 9 of 4"),
        ({"node-feat": "1,0\n0,1\n"}, {}, "node"),
        ({"node-feat": "nan,0\n0,1\n1,1\n0,0\n"}, {}, "not finite at node 0"),
        ({"node-feat": "a,0\n0,1\n1,1\n0,0\n"}, {}, "node-feat"),
        ({}, {"valid": {"edge": np.array([0, 1])}}, "valid.pt"),
        ({}, {"valid": {"edge": np.array([[0.5, 1]])}}, "valid.pt"),
        ({}, {"valid": {"head": np.array([0]), "tail": np.array([1])}}, "no 'edge'"),
        ({}, {"valid": [1, 2]}, "no 'edge'"),
        ({}, {"test": {"edge": np.array([[0, 8]])}}, "node 8"),
        ({}, {"test": {"edge": np.array([[0, 3]]), "edge_neg": np.array([[0, 8]])}}, "node 8"),
    ],
)
def test_broken_ogb_folders(tmp_path, raw, split, sentence):
    assert sentence in sentence_of(ogb(tmp_path, raw, split))


def test_an_ogb_split_that_runs_code_or_is_cut(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    ogb(folder)
    target = tmp_path / "harmed"
    torch.save({"edge": Harm(target)}, folder / "split" / "time" / "test.pt")
    assert "safely" in sentence_of(folder)
    assert not target.exists()
    (folder / "split" / "time" / "test.pt").unlink()
    assert "test.pt" in sentence_of(folder)
    (folder / "raw" / "edge.csv.gz").write_bytes((folder / "raw" / "edge.csv.gz").read_bytes()[:20])
    assert "edge.csv.gz" in sentence_of(folder)
    (folder / "raw" / "edge.csv.gz").write_bytes(b"0,1\n")
    assert "edge.csv.gz" in sentence_of(folder)


def heart(folder, **changes):
    files = {
        "train_pos.txt": "0\t1\n0\t2\n2\t0\n",
        "valid_pos.txt": "1\t2\n",
        "test_pos.txt": "3\t2\n",
        "valid_neg.txt": "0\t3\n",
        "test_neg.txt": "3\t1\n",
        "gnn_feature": {"entity_embedding": torch.tensor(FEATURES)},
        "heart_valid_samples.npy": np.array([[[1, 3], [3, 2]]]),
        "heart_test_samples.npy": np.array([[[3, 0], [1, 2]]]),
        **changes,
    }
    for name, value in files.items():
        if isinstance(value, str):
            (folder / name).write_text(value)
        elif isinstance(value, dict):
            torch.save(value, folder / name)
        elif value is not None:
            np.save(folder / name, value, allow_pickle=True)
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"train_pos.txt": ""}, "training"),
        ({"train_pos.txt": "0 1 2\n"}, "line 1 has 3 numbers"),
        ({"test_pos.txt": "0\t99999999999999999999\n"}, "too large"),
        ({"test_pos.txt": "0\t-1\n"}, "node -1"),
        ({"test_pos.txt": "0\t7\n"}, "node 7 of 4"),
        ({"test_neg.txt": "0\t8\n"}, "node 8 of 4"),
        ({"heart_test_samples.npy": np.array([[[3.5, 0]]])}, "no whole numbers"),
        ({"heart_test_samples.npy": np.array([[[3, 0]], [[1, 0]]])}, "shape (2, 1, 2) for 1 edges"),
        ({"heart_test_samples.npy": np.array([[[3, 9]]])}, "node 9 of 4"),
        ({"heart_test_samples.npy": np.array([{"a": 1}], dtype=object)}, "heart_test_samples.npy"),
        ({"heart_test_samples.npy": np.array([3, 0])}, "shape (2,)"),
        ({"gnn_feature": {"x": torch.ones(4, 2)}}, "entity_embedding"),
        ({"gnn_feature": {"entity_embedding": torch.ones(3, 2)}}, "node 3 of 3"),
        ({"gnn_feature": {"entity_embedding": torch.full((4, 2), torch.inf)}}, "not finite"),
    ],
)
def test_heart_folders(tmp_path, changes, sentence):
    folder = heart(tmp_path, **changes)
    if sentence is None:
        same(read_graph(folder))
    elif sentence == "training":
        from kontrast.systems.coeba import CoEBA

        with pytest.raises(DataError, match="no training edges"):
            CoEBA().split(CoEBA().read(folder))
    else:
        assert sentence in sentence_of(folder)


# ---- GraphML ---------------------------------------------------------------------------------------------------------

GRAPHML = """<?xml version='1.0' encoding='utf-8'?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="d1" for="edge" attr.name="weight" attr.type="double"/>
  <key id="d0" for="node" attr.name="age" attr.type="double"/>
  <graph edgedefault="{direction}">
    <node id="ann"><data key="d0">{age}</data></node>
    <node id="bob"><data key="d0">2.5</data></node>
    <node id="cid"/>
    <edge source="ann" target="bob"><data key="d1">0.5</data></edge>
    {edge}
  </graph>
</graphml>
"""


def test_graphml_of_a_directed_graph_loses_its_directions(tmp_path):
    text = GRAPHML.format(direction="directed", age="1", edge='<edge source="bob" target="ann"/>')
    (tmp_path / "g.graphml").write_text(text)
    graph = read_graph(tmp_path / "g.graphml")
    assert graph.edges.tolist() == [[0, 1]]
    assert graph.ids == ("ann", "bob", "cid")
    assert graph.features.toarray().ravel().tolist() == [1.0, 2.5, 0.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GRAPHML.format(direction="undirected", age="old", edge=""), "'age' holds 'old'"),
        (GRAPHML.format(direction="undirected", age="nan", edge=""), "not finite"),
        (GRAPHML.format(direction="undirected", age="1", edge="")[:300], "not well-formed"),
        (GRAPHML.format(direction="undirected", age="1", edge="").replace('target="bob"', 'target="ann"'), "no edges"),
        ('<graphml><graph><node/><edge source="a" target="b"/></graph></graphml>', "no 'id'"),
        ("<html></html>", "no <graph>"),
    ],
)
def test_broken_graphml(tmp_path, text, sentence):
    (tmp_path / "g.graphml").write_text(text)
    assert sentence in sentence_of(tmp_path / "g.graphml")
