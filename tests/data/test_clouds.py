"""Views of objects: every format, broken files, meshes, random shapes and rendering."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from kontrast.data.clouds import (
    CATEGORIES,
    POINTS,
    SEEN,
    CloudSet,
    Mesh,
    Poses,
    Sensor,
    has_recipe,
    procedural_mesh,
    read_clouds,
    read_mesh,
    render_view,
    render_views,
)
from kontrast.data.clouds.depth import SYNTHETIC_INTRINSICS, Camera, back_project, load_depth
from kontrast.data.clouds.meshes import meshes_from_arrays
from kontrast.data.clouds.rendering import REAL_CAMERA, draw_pose
from kontrast.errors import DataError

pil = pytest.importorskip("PIL.Image")
QUICK = Sensor(samples=4000)


def refusal(action):
    with pytest.raises(DataError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def arrays(n: int = 3, **changes) -> dict:
    rng = np.random.default_rng(0)
    made = {
        "points": rng.normal(size=(n, 80, 3)).astype(np.float32) * 0.05 + [0, 0, 0.8],
        "category": np.array(["mug", "can", "mug"][:n]),
        "R": np.stack([np.eye(3)] * n),
        "t": np.tile([0.0, 0.0, 0.8], (n, 1)),
        "size": np.full((n, 3), 0.1),
        "instance": np.array(["a", "b", "c"][:n]),
        "split": np.array(["train", "train", "test"][:n]),
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def saved(folder: Path, name: str = "views.npz", **changes) -> Path:
    np.savez(folder / name, **arrays(**changes))
    return folder / name


def depth_scene(folder: Path, name: str = "shelf") -> Path:
    """A flat plate of 40 x 30 pixels at 0.8 m as object 1, and one of 20 x 20 at 1 m as object 7."""
    depth, mask = np.zeros((480, 640), np.uint16), np.zeros((480, 640), np.uint8)
    depth[200:230, 300:340], mask[200:230, 300:340] = 800, 1
    depth[100:120, 100:120], mask[100:120, 100:120] = 1000, 7
    folder.mkdir(parents=True, exist_ok=True)
    pil.fromarray(depth).save(folder / f"{name}_depth.png")
    pil.fromarray(mask).save(folder / f"{name}_mask.png")
    return folder / f"{name}_depth.png"


# ---- archives --------------------------------------------------------------------------------------------------------


def test_an_archive_of_views(tmp_path):
    data = read_clouds(saved(tmp_path))
    assert data.points.shape == (3, POINTS, 3)
    assert data.categories == ("mug", "can", "mug")
    assert data.split == ("train", "train", "test")
    assert data.poses is not None
    np.testing.assert_allclose(data.poses.translation[0], [0, 0, 0.8], atol=1e-6)
    # 80 points are repeated to 1024, each about as often as the others.
    _, counts = np.unique(data.points[0], axis=0, return_counts=True)
    assert (counts.min(), counts.max()) == (12, 13)


def test_integers_with_a_scale_and_numbers_of_categories(tmp_path):
    whole = np.rint(arrays()["points"] * 1e4).astype(np.int16)
    path = saved(tmp_path, points=whole, point_scale=np.float32(1e-4), category=np.array([5, 3, 5]))
    data = read_clouds(path)
    assert data.categories == ("mug", "can", "mug")
    assert abs(float(data.points[:, :, 2].mean()) - 0.8) < 0.02


def test_the_choice_of_points_depends_on_the_view_alone(tmp_path):
    many = arrays()["points"].repeat(30, 1) + np.random.default_rng(1).normal(size=(3, 2400, 3)) * 1e-3
    both = read_clouds(saved(tmp_path, points=many))
    first = read_clouds(saved(tmp_path, "one.npz", n=1, points=many[:1]))
    assert np.array_equal(both.points[0], first.points[0])


def test_a_folder_of_archives_has_parts_and_meshes(tmp_path):
    for part in ("train", "val", "test"):
        saved(tmp_path, f"views_{part}.npz", split=None)
    mesh = procedural_mesh("can", 0)
    np.savez(tmp_path / "meshes.npz", **{"can_a/V": mesh.vertices, "can_a/F": mesh.faces, "can_a/split": "train"})
    data = read_clouds(tmp_path)
    assert len(data) == 9
    assert sorted(set(data.split)) == ["test", "train", "valid"]
    assert [(one.name, one.category, one.split) for one in data.meshes] == [("can_a", "can", "train")]
    assert len(set(data.ids)) == 9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points": None}, "'points'"),
        ({"points": np.zeros((3, 80, 2))}, "(n, p, 3)"),
        ({"points": np.full((3, 80, 3), 800.0)}, "divide millimetres by 1000"),
        ({"points": np.full((3, 80, 3), np.nan)}, "0 valid points"),
        ({"points": np.zeros((3, 20, 3))}, "at least 50"),
        ({"points": np.array([["a"] * 3] * 3)}, "numbers are wanted"),
        ({"category": None}, "--category mug"),
        ({"category": np.array([1, 2, 9])}, "has 9"),
        ({"category": np.array(["mug"])}, "(3,) is wanted"),
        ({"R": None}, "not 'R'"),
        ({"R": np.stack([np.eye(3) * 1.2] * 3)}, "row 0 is no rotation"),
        ({"R": np.stack([np.diag([1.0, 1.0, -1.0])] * 3)}, "no rotation"),
        ({"R": np.zeros((3, 9))}, "(3, 3, 3) is wanted"),
        ({"t": np.full((3, 3), np.inf)}, "'t'"),
        ({"size": np.zeros((3, 3))}, "'size'"),
        ({"split": np.array(["train", "test", "holdout"])}, "'holdout'"),
        ({"id": np.array(["a", "a", "b"])}, "'a' twice"),
        ({"point_scale": np.float32(0)}, "'point_scale'"),
        ({"K": np.eye(4)}, "'K'"),
    ],
)
def test_broken_archives_are_named(tmp_path, changes, words):
    path = saved(tmp_path, **changes)
    sentence = refusal(lambda: read_clouds(path))
    assert words in sentence
    assert str(path) in sentence


def test_damaged_and_foreign_files_are_named(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"hello"):
        path.write_bytes(damage)
        assert "views.npz" in refusal(lambda: read_clouds(path))
    np.savez(path, points=np.array([{"a": 1}], dtype=object))
    assert "no array of numbers" in refusal(lambda: read_clouds(path))
    assert "no such file" in refusal(lambda: read_clouds(tmp_path / "absent.npz"))
    (tmp_path / "notes.txt").write_text("x")
    assert "no format of views" in refusal(lambda: read_clouds(tmp_path / "notes.txt"))
    (tmp_path / "empty").mkdir()
    assert "holds no" in refusal(lambda: read_clouds(tmp_path / "empty"))


# ---- depth images ----------------------------------------------------------------------------------------------------


def test_a_depth_image_gives_a_view_for_each_object(tmp_path):
    data = read_clouds(depth_scene(tmp_path), category="mug")
    assert data.ids == ("shelf 1", "shelf 7")
    assert data.images is not None
    fx, fy, cx, cy = Camera().intrinsics
    points = data.points[0]
    np.testing.assert_allclose(points[:, 2], 0.8, atol=1e-6)
    assert points[:, 0].min() == pytest.approx((300 - cx) * 0.8 / fx, abs=1e-5)
    assert points[:, 1].max() == pytest.approx((229 - cy) * 0.8 / fy, abs=1e-5)
    assert len(read_clouds(tmp_path, category="mug")) == 2


def test_intrinsics_unit_and_mask_can_be_given(tmp_path):
    path = depth_scene(tmp_path)
    other = tmp_path / "other.png"
    (tmp_path / "shelf_mask.png").rename(other)
    camera = Camera((500.0, 500.0, 320.0, 240.0), 0.0005, other)
    data = read_clouds(path, category="can", camera=camera)
    np.testing.assert_allclose(data.points[0][:, 2], 0.4, atol=1e-6)
    assert "no such file" in refusal(lambda: read_clouds(path, category="can"))


def test_pixels_without_depth_are_left_out():
    depth = np.array([[0, 1000], [500, 0]], np.int32)
    found = back_project(depth, np.ones((2, 2), bool), Camera((1.0, 1.0, 0.0, 0.0)))
    assert found.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.5, 0.5]]


def test_composed_depth_of_nocs_is_put_together(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[1, 2] = [0, 3, 32]
    pil.fromarray(pixels).save(tmp_path / "a.png")
    assert load_depth(tmp_path / "a.png")[1, 2] == 800


def test_broken_depth_images_are_named(tmp_path):
    path = depth_scene(tmp_path)
    assert "--category" in refusal(lambda: read_clouds(path))
    pil.fromarray(np.zeros((480, 640), np.uint8)).save(tmp_path / "shelf_mask.png")
    assert "marks no object" in refusal(lambda: read_clouds(path, category="mug"))
    pil.fromarray(np.ones((10, 10), np.uint8)).save(tmp_path / "shelf_mask.png")
    assert "do not resize" in refusal(lambda: read_clouds(path, category="mug"))
    pil.fromarray(np.zeros((480, 640), np.uint8)).save(path)
    assert "16 bits" in refusal(lambda: read_clouds(path, category="mug"))
    path.write_bytes(path.read_bytes()[:60])
    assert "damaged image" in refusal(lambda: read_clouds(path, category="mug"))
    path.write_bytes(b"text")
    assert "is not an image" in refusal(lambda: read_clouds(path, category="mug"))


def test_a_mask_of_black_and_white_is_one_object(tmp_path):
    path = depth_scene(tmp_path)
    mask = np.zeros((480, 640), np.uint8)
    mask[200:230, 300:340] = 255
    pil.fromarray(mask).save(tmp_path / "shelf_mask.png")
    assert read_clouds(path, category="mug").ids == ("shelf",)


# ---- PLY and meshes --------------------------------------------------------------------------------------------------


def test_a_ply_cloud_and_meshes_of_several_formats(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    points = np.random.default_rng(0).normal(size=(200, 3)) * 0.05
    trimesh.PointCloud(points).export(tmp_path / "cup.ply")
    data = read_clouds(tmp_path / "cup.ply", category="mug")
    assert data.ids == ("cup",)
    assert data.poses is None
    assert "--category" in refusal(lambda: read_clouds(tmp_path / "cup.ply"))
    mesh = procedural_mesh("mug", 1)
    for suffix in ("obj", "ply", "stl"):
        path = tmp_path / f"shape.{suffix}"
        trimesh.Trimesh(mesh.vertices + 5.0, mesh.faces, process=False).export(path)
        read = read_mesh(path, category="mug")
        np.testing.assert_allclose(read.size, mesh.size, atol=1e-4)
        assert abs(float(read.vertices.max(0)[0] + read.vertices.min(0)[0])) < 1e-4
        path.write_bytes(b"ply\nformat nonsense")
        assert path.name in refusal(lambda path=path: read_mesh(path, category="mug"))


def test_a_cloud_is_no_mesh(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    trimesh.PointCloud(np.random.default_rng(0).normal(size=(9, 3))).export(tmp_path / "a.ply")
    assert "no faces" in refusal(lambda: read_mesh(tmp_path / "a.ply", category="mug"))
    assert "no such file" in refusal(lambda: read_mesh(tmp_path / "b.ply", category="mug"))


def test_broken_meshes_in_archives_are_named():
    path = Path("meshes.npz")
    good = {"can_a/V": np.eye(3, dtype=np.float32), "can_a/F": np.array([[0, 1, 2]])}
    assert meshes_from_arrays(good, path)[0].category == "can"
    for change, words in (
        ({"can_a/F": np.array([[0, 1, 9]])}, "not there"),
        ({"can_a/F": np.zeros((0, 3), int)}, "no faces"),
        ({"can_a/V": np.full((3, 3), np.nan)}, "not finite"),
        ({"can_a/V": np.eye(3)[:, :2]}, "(v, 3)"),
    ):
        assert words in refusal(lambda change=change: meshes_from_arrays({**good, **change}, path))
    assert "no 'can_a/F'" in refusal(lambda: meshes_from_arrays({"can_a/V": good["can_a/V"]}, path))


def test_samples_lie_on_the_surface_and_spread_by_area():
    square = Mesh(
        "plate",
        "can",
        np.array([[0, 0, 0], [3, 0, 0], [3, 1, 0], [0, 1, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    found = square.sample(20_000, np.random.default_rng(0))
    assert np.abs(found[:, 2]).max() == 0
    assert (found[:, 0] < 1).mean() == pytest.approx(1 / 3, abs=0.02)


# ---- random shapes and rendering -------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
def test_random_shapes_are_centred_metric_and_repeatable(category):
    one, again, other = procedural_mesh(category, 3), procedural_mesh(category, 3), procedural_mesh(category, 4)
    assert np.array_equal(one.vertices, again.vertices)
    assert not np.array_equal(one.size, other.size)
    np.testing.assert_allclose(one.vertices.max(0), -one.vertices.min(0), atol=1e-6)
    assert 0.03 < float(one.size.max()) < 0.6
    assert one.faces.max() < len(one.vertices)


def test_a_mugs_handle_points_to_x_and_symmetric_shapes_are_round():
    mug = procedural_mesh("mug", 0)
    assert mug.size[0] > mug.size[2] + 0.01
    for category in ("can", "bowl"):
        size = procedural_mesh(category, 0).size
        assert size[0] == pytest.approx(size[2], rel=1e-3)
    assert not has_recipe("teapot")
    with pytest.raises(ValueError, match="known: bottle"):
        procedural_mesh("teapot", 0)


def test_upright_poses_look_down_on_the_object():
    for seed in range(30):
        rotation, place = draw_pose(np.random.default_rng(seed), upright=1.0)
        up = rotation[:, 1]
        # The camera's y points down and it looks down by 15 to 75 degrees, rolled by a few.
        assert -np.sin(np.radians(76)) <= up[2] <= -np.sin(np.radians(14))
        assert up[1] < 0
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
        assert 0.5 <= place[2] <= 1.3


def test_a_rendered_view_shows_the_near_side_only():
    mesh = procedural_mesh("can", 0)
    surface = mesh.sample(20_000, np.random.default_rng(0))
    clean = Sensor(noise=(0.0, 0.0), dropout=0.0, covered=0.0, flying=0.0)
    place = np.array([0.0, 0.0, 0.7], np.float32)
    upright = np.diag([1.0, -1.0, -1.0]).astype(np.float32)
    seen = render_view(surface, upright, place, np.random.default_rng(0), sensor=clean)
    # Upright and seen from the side: nothing behind the axis, up to what the hidden-point test lets through.
    assert (seen[:, 2] < 0.7 + 0.01).mean() > 0.98
    assert seen[:, 2].min() == pytest.approx(0.7 - mesh.size[2] / 2, abs=0.003)


def test_rendered_views_agree_with_their_poses_and_repeat():
    meshes = [procedural_mesh("bowl", 0), procedural_mesh("mug", 0)]
    data, again = render_views(meshes, 4, sensor=QUICK), render_views(meshes, 4, sensor=QUICK)
    assert np.array_equal(data.points, again.points)
    assert data.poses is not None
    inside = np.abs(data.poses.to_object(data.points)) <= data.poses.size[:, None] / 2 + 0.012
    assert inside.all(2).mean() > 0.97
    alone = render_views(meshes[1:], 4, sensor=QUICK)
    assert np.array_equal(alone.points, data.points[4:])
    u = data.points[..., 0] / data.points[..., 2] * REAL_CAMERA[0, 0] + REAL_CAMERA[0, 2]
    np.testing.assert_allclose(u, np.rint(u), atol=2e-3)


def test_noise_and_cover_change_a_view():
    mesh = procedural_mesh("bowl", 1)
    clean = render_views([mesh], 6, sensor=Sensor(samples=4000, covered=0.0, dropout=0.0, flying=0.0))
    covered = render_views([mesh], 6, sensor=Sensor(samples=4000, covered=1.0, dropout=0.0, flying=0.0))
    extents = [np.linalg.norm(np.ptp(one.points, axis=1), axis=1).mean() for one in (clean, covered)]
    assert extents[1] < extents[0]


def test_taking_rows_keeps_everything_together(tmp_path):
    data = read_clouds(saved(tmp_path))
    some = data.take([2, 0])
    assert some.ids == (data.ids[2], data.ids[0])
    assert some.instances == ("c", "a")
    assert np.array_equal(some.points[1], data.points[0])
    assert len(data.take(np.array([True, False, True]))) == 2
    assert data.digest() != some.digest()
    with pytest.raises(ValueError, match="entries for 3 views"):
        CloudSet(data.points, ("mug",), data.ids)
    with pytest.raises(ValueError, match="'size' must have the shape"):
        Poses(np.zeros((1, 3, 3), np.float32), np.zeros((1, 3), np.float32), np.zeros((1, 2), np.float32))


# ---- NOCS ------------------------------------------------------------------------------------------------------------


def nocs_image(folder: Path, stem: str = "0000", label: dict | None = None) -> dict:
    """An image of two objects: number 1 is a mug (class 6), number 7 a can (class 4), and number 9 clutter."""
    depth_scene(folder, stem)
    (folder / f"{stem}_meta.txt").write_text("1 6 mug_white\n7 4 can_red\n9 0 clutter\n")
    held = label or {
        "class_ids": [6, 4],
        "instance_ids": [1, 7],
        "model_list": ["mug_white", "can_red"],
        "bboxes": np.zeros((2, 4), np.int32),
        "scales": np.array([0.2, 0.1], np.float32),
        "rotations": np.stack([np.eye(3)] * 2).astype(np.float32),
        "translations": np.array([[0, 0, 0.8], [0, 0, 1.0]], np.float32),
    }
    (folder / f"{stem}_label.pkl").write_bytes(pickle.dumps(held))
    return held


def models(root: Path) -> None:
    box = np.array([[0.3, 0.4, 0.2], [-0.3, -0.4, -0.2]], np.float32)
    (root / "obj_models").mkdir()
    (root / "obj_models" / "real_train.pkl").write_bytes(pickle.dumps({"mug_white": box, "can_red": box}))


def test_a_tree_of_nocs(tmp_path):
    root = tmp_path / "nocs"
    nocs_image(root / "Real" / "train" / "scene_1")
    nocs_image(root / "Real" / "test" / "scene_1")
    models(root)
    data = read_clouds(root)
    assert len(data) == 4
    assert sorted(set(data.split)) == ["test", "train"]
    assert data.poses is not None
    first = data.ids.index(next(name for name in data.ids if "train" in name and name.endswith(" 1")))
    assert data.categories[first] == "mug"
    np.testing.assert_allclose(data.poses.size[first], np.array([0.6, 0.8, 0.4]) * 0.2, rtol=1e-5)
    np.testing.assert_allclose(data.points[first][:, 2], 0.8, atol=1e-6)


def test_test_labels_of_nocs_with_poses_sizes_and_handles(tmp_path):
    scaled = np.stack([np.diag([0.2, 0.2, 0.2, 1.0]), np.diag([0.1, 0.1, 0.1, 1.0])]).astype(np.float32)
    scaled[:, 2, 3] = [0.8, 1.0]
    label = {
        "class_ids": np.array([6, 4]), "instance_ids": [1, 7], "model_list": ["a", "b"], "poses": scaled,
        "size": np.full((2, 3), 0.5, np.float32), "handle_visibility": np.array([0, 1]),
        "scales": np.array([0.2, 0.1], np.float32),
    }  # fmt: skip
    nocs_image(tmp_path / "CAMERA" / "val" / "00000", label=label)
    data = read_clouds(tmp_path / "CAMERA")
    assert data.poses is not None
    np.testing.assert_allclose(data.poses.size, [[0.1] * 3, [0.05] * 3], rtol=1e-5)
    np.testing.assert_allclose(data.poses.translation[:, 2], [0.8, 1.0])
    assert data.handle.tolist() == [0, SEEN]
    # A tree without a folder 'test' is measured on 'val', as CAMERA25 is; its camera has other intrinsics.
    assert set(data.split) == {"test"}
    assert data.intrinsics[0, 0, 0] == pytest.approx(SYNTHETIC_INTRINSICS[0])


def test_without_labels_nocs_has_no_poses(tmp_path):
    nocs_image(tmp_path / "real" / "test" / "scene_1")
    (tmp_path / "real" / "test" / "scene_1" / "0000_label.pkl").unlink()
    data = read_clouds(tmp_path)
    assert data.poses is None
    assert data.categories == ("mug", "can")


class Evil:
    def __reduce__(self):
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_ids": [6, 8]}, "class 8"),
        ({"rotations": np.zeros((2, 3, 3), np.float32)}, "no rotation"),
        ({"scales": np.zeros(2, np.float32)}, "cannot be"),
        ({"translations": np.zeros((1, 3), np.float32)}, "(2, 3)"),
        ({"instance_ids": ["a", "b"]}, "'instance_ids'"),
        ({"model_list": ["mug_white"]}, "1 models for 2 objects"),
        ({"model_list": ["mug_white", "unknown"]}, "'unknown'"),
        ({"note": Evil()}, "may run code"),
    ],
)
def test_broken_labels_are_named(tmp_path, change, words):
    folder = tmp_path / "Real" / "train" / "scene_1"
    label = nocs_image(folder)
    models(tmp_path)
    (folder / "0000_label.pkl").write_bytes(pickle.dumps({**label, **change}))
    sentence = refusal(lambda: read_clouds(tmp_path))
    assert words in sentence
    assert "0000_label.pkl" in sentence


def test_half_a_label_and_missing_images_are_named(tmp_path):
    folder = tmp_path / "Real" / "train" / "scene_1"
    nocs_image(folder)
    nocs_image(folder, "0001")
    models(tmp_path)
    (folder / "0001_label.pkl").unlink()
    assert "label all, or none" in refusal(lambda: read_clouds(tmp_path))
    whole = (folder / "0000_label.pkl").read_bytes()
    (folder / "0000_label.pkl").write_bytes(whole[:40])
    assert "0000_label.pkl" in refusal(lambda: read_clouds(tmp_path))
    (folder / "0000_label.pkl").write_bytes(whole)
    (folder / "0000_mask.png").unlink()
    assert "0000_mask.png" in refusal(lambda: read_clouds(tmp_path))
    (folder / "0001_meta.txt").write_text("one mug\n")
    (folder / "0000_meta.txt").unlink()
    assert "'number class model' is wanted" in refusal(lambda: read_clouds(tmp_path))
