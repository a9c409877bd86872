"""Readers of inspection data: every layout, and what is broken in them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from kontrast.data.surfaces import ANOMALOUS, NORMAL, UNKNOWN, decode, list_files, load_masks, read_surfaces, sizes
from kontrast.data.surfaces.layouts import find_surfaces
from kontrast.errors import DataError, MissingExtraError


def encoded(values, ending=".png"):
    stream = io.BytesIO()
    kind = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}[ending]
    Image.fromarray(values).save(stream, format=kind)
    return stream.getvalue()


def picture(seed=0, size=(12, 16)):
    return np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)


def spot(size=(12, 16), value=255):
    mask = np.zeros(size, dtype=np.uint8)
    mask[3:6, 4:8] = value
    return mask


def put(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def mvtec(domain="", ending=".png", good="good", masks="ground_truth/{kind}/{name}_mask.png"):
    base = f"{domain}/" if domain else ""
    files = {f"{base}train/{good}/{i:03d}{ending}": encoded(picture(i), ending) for i in range(3)}
    files |= {f"{base}test/{good}/{i:03d}{ending}": encoded(picture(10 + i), ending) for i in range(2)}
    for i in range(2):
        files[f"{base}test/crack/{i:03d}{ending}"] = encoded(picture(20 + i), ending)
        if masks:
            files[base + masks.format(kind="crack", name=f"{i:03d}")] = encoded(spot())
    return files


def summary(data):
    return sorted((row.domain, row.part, row.label, row.kind, row.mask is not None) for row in data.rows)


ONE = [
    ("train", NORMAL, "good", False), ("train", NORMAL, "good", False), ("train", NORMAL, "good", False),
    ("test", NORMAL, "good", False), ("test", NORMAL, "good", False),
    ("test", ANOMALOUS, "crack", True), ("test", ANOMALOUS, "crack", True),
]  # fmt: skip


def expected(*domains):
    return sorted((domain, *row) for domain in domains for row in ONE)


def test_mvtec_and_folders_of_it(tmp_path):
    put(tmp_path / "all", mvtec("nut") | mvtec("screw") | {"nut/license.txt": "free", "nut/.DS_Store": "x"})
    data = read_surfaces(tmp_path / "all")
    assert summary(data) == expected("nut", "screw")
    assert data.masked == {"nut", "screw"}
    alone = read_surfaces(tmp_path / "all" / "nut")
    assert summary(alone) == expected("nut")
    masks = load_masks(data, 24)
    assert [mask.any() for mask in masks] == [row.label == ANOMALOUS for row in data.rows]
    assert masks[[row.label for row in data.rows].index(ANOMALOUS)].sum() == 24 * 24 * 12 // (12 * 16)


def test_btad_with_other_names_and_endings(tmp_path):
    files = mvtec("01", ".bmp", good="ok", masks="ground_truth/{kind}/{name}.png")
    assert summary(read_surfaces(put(tmp_path / "btad", files))) == expected("01")


def test_visa_by_its_split_file(tmp_path):
    names = [("train", "normal", "", i) for i in range(3)] + [("test", "normal", "", i) for i in range(3, 5)]
    names += [("test", "anomaly", f"candle/masks/{i}.png", i) for i in range(5, 7)]
    rows = [f"candle,{part},{label},candle/images/{i}.JPG,{mask}" for part, label, mask, i in names]
    files = {f"candle/images/{i}.JPG": encoded(picture(i), ".jpg") for i in range(7)}
    # VisA's masks number their regions: 1, 2, ...
    files |= {f"candle/masks/{i}.png": encoded(spot(value=1)) for i in (5, 6)}
    files["split_csv/1cls.csv"] = "\n".join(["object,split,label,image,mask", *rows])
    data = read_surfaces(put(tmp_path / "visa", files))
    assert [row[:3] for row in summary(data)] == [row[:3] for row in expected("candle")]
    assert sum(mask.any() for mask in load_masks(data, 16)) == 2


def test_kolektor_with_masks_beside(tmp_path):
    files = {}
    for item in range(3):
        for part in range(2):
            name = f"KSDD/kos{item:02d}/Part{part}"
            files[f"{name}.jpg"] = encoded(picture(item * 2 + part), ".jpg")
            files[f"{name}_label.bmp"] = encoded(
                spot() if (item, part) == (1, 0) else np.zeros((12, 16), np.uint8), ".bmp"
            )
    data = read_surfaces(put(tmp_path, files) / "KSDD")
    assert [(row.label, row.mask is not None) for row in data.rows].count((ANOMALOUS, True)) == 1
    assert {row.domain for row in data.rows} == {"KSDD"}
    assert len({row.group for row in data.rows}) == 3
    two = {f"train/{i}.png": encoded(picture(i)) for i in range(2)} | {"test/9.png": encoded(picture(9))}
    two |= {f"train/{i}_GT.png": encoded(np.zeros((12, 16), np.uint8)) for i in range(2)} | {
        "test/9_GT.png": encoded(spot())
    }
    second = read_surfaces(put(tmp_path / "KSDD2", two))
    assert [(row.part, row.label) for row in second.rows] == [("test", 1), ("train", 0), ("train", 0)]


def test_yes_and_no(tmp_path):
    files = {f"no/{i}.jpg": encoded(picture(i), ".jpg") for i in range(3)} | {"yes/a.jpg": encoded(picture(9), ".jpg")}
    data = read_surfaces(put(tmp_path / "brain", files))
    assert summary(data) == [("brain", "", NORMAL, "good", False)] * 3 + [("brain", "", ANOMALOUS, "yes", False)]
    assert not data.masked


def test_zip_archives_are_read_in_place(tmp_path):
    for name, inside in (("nut", "nut/"), ("screw", "")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path, content in mvtec().items():
                archive.writestr(inside + path, content)
    data = read_surfaces(tmp_path)
    assert summary(data) == expected("nut", "screw")
    assert (
        list(tmp_path.iterdir()) == [tmp_path / "nut.zip", tmp_path / "screw.zip"] or len(list(tmp_path.iterdir())) == 2
    )
    assert summary(read_surfaces(tmp_path / "screw.zip")) == expected("screw")
    assert next(decode([data.rows[0].file], 8)).pixels.shape == (8, 8, 3)
    row = "nut/test/crack/000.png,nut,test,1,crack,nut/ground_truth/crack/000_mask.png"
    index = f"file,domain,split,label,type,mask\n{row}\n"
    (tmp_path / "index.csv").write_text(index)
    assert summary(read_surfaces(tmp_path)) == [("nut", "test", ANOMALOUS, "crack", True)]


def test_an_index_may_lack_everything_but_the_file(tmp_path):
    put(
        tmp_path, {"a.png": encoded(picture()), "b.tif": encoded(picture(), ".tif"), "list.csv": "path\na.png\nb.tif\n"}
    )
    data = read_surfaces(tmp_path / "list.csv")
    assert [(row.id, row.label, row.part) for row in data.rows] == [("a.png", UNKNOWN, ""), ("b.tif", UNKNOWN, "")]


def test_single_images_and_loose_folders(tmp_path):
    put(tmp_path / "line", {"x.bmp": encoded(picture(), ".bmp"), "deep/y.png": encoded(picture())})
    assert [row.id for row in read_surfaces(tmp_path / "line" / "x.bmp").rows] == ["x.bmp"]
    assert [(row.id, row.label) for row in read_surfaces(tmp_path / "line").rows] == [("deep/y.png", -1), ("x.bmp", -1)]


def test_sixteen_bits_and_transparency_are_decoded(tmp_path):
    ramp = np.linspace(1000, 9000, 16 * 16).reshape(16, 16).astype(np.uint16)
    clear = np.zeros((16, 16, 4), np.uint8)
    put(tmp_path, {"deep.png": encoded(ramp), "clear.png": encoded(clear), "grey.png": encoded(picture(size=(16, 16)))})
    data = read_surfaces(tmp_path)
    found = {row.id: image for row, image in zip(data.rows, decode([row.file for row in data.rows], 16))}
    assert found["deep.png"].pixels.min() == 0
    assert found["deep.png"].pixels.max() == 255
    assert np.array_equal(found["grey.png"].pixels[..., 1], picture(size=(16, 16)))
    assert sizes(data) == [(16, 16)] * 3


BROKEN = {
    "cut image": lambda files: files | {"nut/test/crack/000.png": files["nut/test/crack/000.png"][:60]},
    "no image": lambda files: files | {"nut/test/crack/000.png": b"hello"},
    "empty image": lambda files: files | {"nut/test/crack/000.png": b""},
    "cut mask": lambda files: (
        files | {"nut/ground_truth/crack/000_mask.png": files["nut/ground_truth/crack/000_mask.png"][:50]}
    ),
    "mask of other size": lambda files: files | {"nut/ground_truth/crack/000_mask.png": encoded(spot((24, 16)))},
    "empty mask": lambda files: files | {"nut/ground_truth/crack/000_mask.png": encoded(np.zeros((12, 16), np.uint8))},
    "mask missing": lambda files: {
        name: file for name, file in files.items() if not name.endswith("crack/000_mask.png")
    },
}


def used(path):
    data = read_surfaces(path)
    list(decode([row.file for row in data.rows], 8))
    load_masks(data, 8)


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named(tmp_path, kind):
    put(tmp_path / "all", BROKEN[kind](mvtec("nut")))
    with pytest.raises(DataError, match="000") as caught:
        used(tmp_path / "all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name\na.png\n", "column 'file'"),
        ("file,label\na.png,maybe\n", "'maybe'"),
        ("file,split\na.png,later\n", "'later'"),
        ("file\nb.png\n", "b.png"),
        ("file\na.png\na.png\n", "again"),
        ('file\n""\n', "empty"),
        ("file,label,mask\na.png,1,m.png\n", "m.png"),
        ("file\n", "no rows"),
    ],
)
def test_broken_indexes_are_named(tmp_path, text, says):
    put(tmp_path, {"a.png": encoded(picture()), "index.csv": text})
    with pytest.raises(DataError, match=says):
        read_surfaces(tmp_path / "index.csv")


def test_an_index_with_masks_for_some_is_refused(tmp_path):
    text = "file,label,mask,domain\na.png,1,m.png,x\nb.png,1,,x\n"
    put(
        tmp_path,
        {"a.png": encoded(picture()), "b.png": encoded(picture(1)), "m.png": encoded(spot()), "index.csv": text},
    )
    with pytest.raises(DataError, match=r"no mask for b\.png"):
        read_surfaces(tmp_path)


def test_bad_paths_archives_and_slices(tmp_path):
    with pytest.raises(DataError, match="absent"):
        read_surfaces(tmp_path / "absent")
    with pytest.raises(DataError, match="no files"):
        read_surfaces(tmp_path)
    put(tmp_path, {"a.zip": b"PK no zip", "b.txt": b"x"})
    for name in ("a.zip", "b.txt"):
        with pytest.raises(DataError, match=name):
            read_surfaces(tmp_path / name)
    put(tmp_path / "text", {"b.txt": b"x"})
    with pytest.raises(DataError, match="no image"):
        read_surfaces(tmp_path / "text")
    for name in ("c.dcm", "c.nii.gz"):
        put(tmp_path / "slices", {name: b"x"})
        data = read_surfaces(tmp_path / "slices" / name)
        with pytest.raises((DataError, MissingExtraError)):
            list(decode([data.rows[0].file], 8))


def test_a_damaged_member_of_an_archive_is_named(tmp_path):
    path = tmp_path / "nut.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("test/good/0.png", encoded(picture()))
    whole = bytearray(path.read_bytes())
    whole[60] ^= 255
    path.write_bytes(whole)
    file = next(iter(list_files(path).values()))
    with pytest.raises(DataError, match=r"0\.png"):
        list(decode([file], 8))


def test_a_layout_is_told_by_names_alone(tmp_path):
    names = ("train/ok/1.png", "test/ok/2.png", "test/hole/3.png", "ground_truth/hole/3_mask.png")
    put(tmp_path, dict.fromkeys(names, b"never opened"))
    found = find_surfaces(list_files(tmp_path), "lids")
    assert [(one.domain, one.part, one.label, one.kind, one.mask is None) for one in found] == [
        ("lids", "test", ANOMALOUS, "hole", False),
        ("lids", "test", NORMAL, "good", True),
        ("lids", "train", NORMAL, "good", True),
    ]
    with pytest.raises(DataError, match="lids: holds no image"):
        find_surfaces({}, "lids")
