"""hrc_pose: the geometry behind labels and answers, the pool, the ranking, the options, the files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from kontrast.data.clouds import (
    HIDDEN,
    SEEN,
    UNKNOWN,
    CloudSet,
    Poses,
    Sensor,
    procedural_mesh,
    read_clouds,
    render_views,
)
from kontrast.errors import ConfigError, DataError, KontrastError
from kontrast.systems.hrc_pose import HrcPose, HrcPoseConfig
from kontrast.systems.hrc_pose.answers import box_as_ply, pose_table, poses_of
from kontrast.systems.hrc_pose.baselines import mean_pose
from kontrast.systems.hrc_pose.config import AugmentSection, PoolSection
from kontrast.systems.hrc_pose.estimating import Estimates
from kontrast.systems.hrc_pose.example import write_example_scene
from kontrast.systems.hrc_pose.figures import pose_figures
from kontrast.systems.hrc_pose.measuring import (
    all_metrics,
    axis_only,
    category_weights,
    chance_of_pairs,
    hits,
    order_correlations,
)
from kontrast.systems.hrc_pose.model import HrcPoseModel, Projection, label_distances, pose_losses, rank_labels
from kontrast.systems.hrc_pose.rotations import compose
from kontrast.systems.hrc_pose.views import PoseViews, augmented, handles, training_pool, within

QUICK = Sensor(samples=3000)
TURNS = torch.tensor(Rotation.from_rotvec(np.random.default_rng(0).normal(size=(12, 3))).as_matrix())


def refusal(action, kind: type[KontrastError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return HrcPose.write_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def parts(path):
    system = HrcPose(**HrcPose.smoke)
    return system.split(system.read(path))


@pytest.fixture(scope="module")
def fitted(parts):
    return HrcPose(**HrcPose.smoke).fit(parts.train, parts.valid)


@pytest.fixture(scope="module")
def views():
    """Rendered views of two shapes of each of three categories."""
    return render_views([procedural_mesh(k, i) for k in ("bowl", "can", "mug") for i in (0, 1)], 6, sensor=QUICK)


def turn(axis: str, degrees: float) -> torch.Tensor:
    return torch.tensor(Rotation.from_euler(axis, [degrees], degrees=True).as_matrix().reshape(3, 3))


def like(fitted: HrcPose, **options) -> HrcPose:
    """The fitted system under other options of its answers."""
    system = HrcPose(**{**HrcPose.smoke, **options})
    system.facts_, system.model_ = fitted.facts_, fitted.model_
    return system


# ---- rotations from axes ---------------------------------------------------------------------------------------------


def test_exact_axes_give_the_rotation_back():
    trust = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(compose(TURNS[:, :, 1], TURNS[:, :, 0], trust), TURNS, atol=1e-6, rtol=0)


def test_the_less_trusted_axis_turns_farther():
    green, red = TURNS[:, :, 1], TURNS @ turn("z", -20)
    found = compose(green, red[:, :, 0], torch.tensor([[3.0, 1.0]], dtype=torch.float64).expand(12, 2))
    np.testing.assert_allclose(found @ found.transpose(1, 2), torch.eye(3).expand(12, 3, 3), atol=1e-9)
    moved = [
        torch.rad2deg(torch.acos((a * b).sum(1))) for a, b in ((found[:, :, 1], green), (found[:, :, 0], red[:, :, 0]))
    ]
    np.testing.assert_allclose(moved[0], 5, atol=1e-6)
    np.testing.assert_allclose(moved[1], 15, atol=1e-6)


def test_without_trust_in_x_the_y_axis_stays_even_where_both_are_parallel():
    green = TURNS[:, :, 1]
    trust = torch.tensor([[0.3, 0.0]], dtype=torch.float64).expand(12, 2)
    for red in (TURNS[:, :, 0], green, -green):
        found = compose(green, red, trust)
        np.testing.assert_allclose(found[:, :, 1], green, atol=1e-9)
        np.testing.assert_allclose(torch.linalg.det(found), 1, atol=1e-9)


# ---- labels ----------------------------------------------------------------------------------------------------------


def labels(rotation: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    place = torch.randn(len(rotation), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return rank_labels(rotation, place, turns)


def test_a_symmetric_object_turned_about_y_is_as_far_from_all_others():
    flags = torch.zeros(12, dtype=torch.bool)
    before = label_distances(*[labels(TURNS, flags)] * 2, which=(0,))[0]
    after = label_distances(*[labels(TURNS @ turn("y", 77), flags)] * 2, which=(0,))[0]
    torch.testing.assert_close(before, after)
    seen = label_distances(*[labels(TURNS @ turn("y", 77), ~flags)] * 2, which=(0,))[0]
    assert (seen - before).abs().max() > 0.1


def test_distances_are_those_of_the_paper_and_a_hidden_handle_counts_for_both():
    turns = torch.tensor([True] * 6 + [False] * 6)
    rows = labels(TURNS, turns)
    rotation, place = label_distances(rows, rows, which=(0, 1))
    g, r = TURNS[:, :, 1], TURNS[:, :, 0]
    bend = lambda a: 1 - a @ a.T  # noqa: E731
    wanted = bend(g) + torch.outer(turns.double(), turns.double()) * bend(r)
    torch.testing.assert_close(rotation, wanted, atol=1e-9, rtol=0)
    t = rows[:, 6:9]
    torch.testing.assert_close(place, (t[:, None] - t[None]).square().mean(2))
    assert not rotation.diagonal().any()


def test_losses_are_zero_for_a_perfect_answer_and_finite_without_any_x_axis():
    batch = {
        "points": torch.randn(12, 20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.05,
        "rotation": TURNS,
        "place": torch.zeros(12, 3, dtype=torch.float64),
        "size": torch.ones(12, 3, dtype=torch.float64) * 0.1,
        "turns": torch.zeros(12, dtype=torch.bool),
    }
    encoded = {
        "green": TURNS[:, :, 1], "red": TURNS[:, :, 0], "place": batch["place"], "size": batch["size"],
        "trust": torch.full((12, 2), 30.0, dtype=torch.float64),
    }  # fmt: skip
    for flags in (batch["turns"], ~batch["turns"]):
        terms = pose_losses(encoded, {**batch, "turns": flags})
        assert all(abs(float(value)) < 1e-6 for value in terms.values()), terms


# ---- what training draws from ----------------------------------------------------------------------------------------


def test_augmentation_moves_labels_with_the_points(views):
    assert views.poses is not None
    n = len(views)
    section = AugmentSection(stretch=1, taper=0, turn=1, inflate=0, mirror=0.5)
    round_ones = np.array([kind != "mug" for kind in views.categories])
    points, poses = augmented(
        views.points, views.poses, round_ones, np.zeros(n, bool), section, np.random.default_rng(0)
    )
    np.testing.assert_allclose(np.linalg.det(poses.rotation), 1, atol=1e-4)
    # In units of the box, each point is where it was; mirrored views have z reversed.
    before = views.poses.to_object(views.points) / views.poses.size[:, None]
    after = poses.to_object(points) / poses.size[:, None]
    np.testing.assert_allclose(after[:, :, :2], before[:, :, :2], atol=2e-3)
    np.testing.assert_allclose(np.abs(after[:, :, 2]), np.abs(before[:, :, 2]), atol=2e-3)
    ratio = poses.size / views.poses.size
    np.testing.assert_allclose(ratio[round_ones, 0], ratio[round_ones, 2], rtol=1e-5)
    assert (np.abs(ratio - 1) <= 0.2 + 1e-5).all()


def test_tapering_keeps_points_in_the_box_and_inflation_moves_outwards(views):
    assert views.poses is not None
    n, still = len(views), np.zeros(len(views), bool)
    tapering = AugmentSection(stretch=0, taper=1, turn=0, inflate=0)
    points, poses = augmented(views.points, views.poses, ~still, ~still, tapering, np.random.default_rng(1))
    inside = np.abs(poses.to_object(points)) <= poses.size[:, None] * 0.55 + 0.012
    assert inside.all(2).mean() > 0.95
    inflating = AugmentSection(stretch=0, taper=0, turn=0, inflate=1)
    points, poses = augmented(views.points, views.poses, ~still, still, inflating, np.random.default_rng(1))
    assert np.array_equal(poses.size, views.poses.size)
    lengths = [np.linalg.norm(views.poses.to_object(one), axis=2).reshape(n, -1) for one in (views.points, points)]
    assert (lengths[1] >= lengths[0] - 1e-5).all()


def test_no_augmentation_changes_nothing(views):
    assert views.poses is not None
    section, flags = AugmentSection(stretch=0, taper=0, turn=0, inflate=0), np.ones(len(views), bool)
    points, poses = augmented(views.points, views.poses, flags, flags, section, np.random.default_rng(0))
    np.testing.assert_allclose(points, views.points, atol=1e-5)
    np.testing.assert_allclose(poses.rotation, views.poses.rotation, atol=1e-6)


def test_everyone_moves_within_the_group():
    groups = np.array([0, 1, 0, 2, 1, 0, 1])
    for seed in range(10):
        order = within(groups, np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(7))
        assert (groups[order] == groups).all()
        assert ((order != np.arange(7)) | (groups == 2)).all()


def test_handles_are_found_from_the_points(views):
    assert views.poses is not None
    found = handles(views)
    mug = np.array([kind == "mug" for kind in views.categories])
    assert (found[~mug] == SEEN).all()
    inside = views.poses.to_object(views.points)[mug]
    radius = views.poses.size[mug, 2] / 2
    beyond = (
        np.hypot(inside[:, :, 0] - (radius - views.poses.size[mug, 0] / 2)[:, None], inside[:, :, 2])
        > 1.15 * radius[:, None]
    ).mean(1)
    assert (found[mug][beyond > 0.05] == SEEN).all()
    # What the data say goes before what the points say.
    stated = replace(views, handle=np.full(len(views), HIDDEN, np.int8))
    assert (handles(stated)[mug] == HIDDEN).all()


def test_batches_are_centred_and_a_shuffled_one_differs_in_the_ranking_alone(views):
    made = [
        PoseViews(views, ("bowl", "can", "mug"), ("bowl", "can"), 64, AugmentSection(), shuffled=shuffled).batch(
            np.arange(12), np.random.default_rng(0)
        )
        for shuffled in (False, True)
    ]
    assert made[0]["points"].shape == (12, 64, 3)
    torch.testing.assert_close(made[0]["points"].mean(1), torch.zeros(12, 3), atol=1e-6, rtol=0)
    for name, value in made[0].items():
        assert torch.equal(value, made[1][name]) == (name != "rank"), name
    assert not made[0]["turns"].any()


def test_the_pool_holds_placed_rendered_and_random_views_once(views, tmp_path, monkeypatch):
    monkeypatch.setenv("KONTRAST_CACHE", str(tmp_path))
    train = replace(views, meshes=(procedural_mesh("can", 7), procedural_mesh("laptop", 0)))
    section = PoolSection(views=3, instances=2, instance_views=2)
    pool = training_pool(train, section, ["bowl", "can"])
    # Laptops are not in the training part; three categories have two random shapes of two views each.
    assert len(pool) == len(views) + 3 + 3 * 2 * 2
    assert set(pool.categories) == {"bowl", "can", "mug"}
    files = sorted((tmp_path / "views").glob("*.npz"))
    assert len(files) == 2
    again = training_pool(train, section, ["bowl", "can"])
    assert np.array_equal(pool.points, again.points)
    files[0].write_bytes(b"half")
    assert np.array_equal(training_pool(train, section, ["bowl", "can"]).points, pool.points)
    assert len(training_pool(train, PoolSection(views=0, instances=0), [])) == len(views)


# ---- the model -------------------------------------------------------------------------------------------------------


def batch_of(views: CloudSet, rows: int = 18) -> dict[str, torch.Tensor]:
    made = PoseViews(views, ("bowl", "can", "mug"), ("bowl", "can"), 64, AugmentSection())
    return made.batch(np.arange(0, len(views), len(views) // rows)[:rows], np.random.default_rng(0))


def model(**options) -> HrcPoseModel:
    small = {"encoder.widths": [8, 8, 8, 8, 8], "encoder.neighbours": 4, "heads.width": 16, "points": 64}
    config = HrcPoseConfig.preset("cpu", **{**small, **options})
    torch.manual_seed(0)
    return HrcPoseModel({"categories": ["bowl", "can", "mug"], "mean_size": [[0.1] * 3] * 3}, config)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads.on": "points"},
        {"shared": True},
        {"encoder.scope": "features", "encoder.supports": 2},
        {"encoder.kind": "pointnet", "encoder.widths": [8, 16]},
        {"ranking.across": True},
        {"contrast": "off"},
    ],
    ids=str,
)
def test_every_option_gives_finite_terms_and_reaches_its_weights(views, options):
    made, batch = model(**options).train(), batch_of(views)
    terms = made.losses(made.encode(batch), batch, None)  # type: ignore[arg-type]
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    assert ("rank_rotation" in terms) == (options.get("contrast") != "off")
    torch.stack(list(terms.values())).sum().backward()
    still = [name for name, one in made.named_parameters() if one.grad is None or not one.grad.any()]
    ranked = [name for name in still if not name.startswith("project")] if "contrast" in options else still
    assert not ranked


def test_the_strict_set_costs_less_than_the_task_set_and_both_add_up(views):
    batch, terms = batch_of(views), {}
    for sets in ("strict", "task", "both"):
        made = model(**{"ranking.sets": sets}).eval()
        terms[sets] = made.losses(made.encode(batch), batch, None)["rank_rotation"].item()  # type: ignore[arg-type]
    assert 0 <= terms["strict"] <= terms["task"]
    assert terms["both"] == pytest.approx(terms["strict"] + 0.8 * terms["task"], rel=1e-5)


def test_one_encoder_is_half_of_two():
    counts = [
        sum(one.numel() for name, one in made.named_parameters() if name.startswith(("rotation.", "translation.")))
        for made in (model(shared=True), model())
    ]
    assert counts[0] * 2 == counts[1]


def test_a_projection_is_not_scaled_to_length_one():
    made = Projection(6).eval()
    found = made(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * 10)
    assert found.norm(dim=1).std() > 0.1


# ---- the system ------------------------------------------------------------------------------------------------------


def test_moving_the_cloud_moves_the_centre_and_nothing_else(fitted, parts):
    shift = np.array([0.25, -0.125, 0.5], np.float32)
    moved = replace(parts.test, points=parts.test.points + shift)
    before, after = fitted.estimates(parts.test).poses, fitted.estimates(moved).poses
    np.testing.assert_allclose(after.translation, before.translation + shift, atol=2e-5)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=2e-3)
    np.testing.assert_allclose(after.size, before.size, atol=2e-5)


def test_more_draws_average_more_points(fitted, parts):
    one, four = fitted.estimates(parts.test), like(fitted, draws=4).estimates(parts.test)
    assert not np.array_equal(one.poses.translation, four.poses.translation)
    lots = like(fitted, draws=99).estimates(parts.test)
    assert np.isfinite(lots.poses.rotation).all()


def test_ranking_orders_the_space(fitted, parts):
    off = HrcPose(**{**HrcPose.smoke, "contrast": "off"}).fit(parts.train, parts.valid)
    found, plain = fitted.evaluate(parts.test), off.evaluate(parts.test)
    assert found["rotation spearman space"] > plain["rotation spearman space"] + 0.1


def test_parts_are_split_by_object(parts):
    system = HrcPose(**HrcPose.smoke)
    unsplit = replace(parts.train, split=None)
    made = system.split(unsplit)
    objects = [set(part.instances) for _, part in made]
    assert not set.intersection(*objects)
    name = unsplit.instances[0]
    held = HrcPose(**{**HrcPose.smoke, "held_out": [name]}).split(replace(unsplit, split=("train",) * len(unsplit)))
    assert set(held.valid.instances) == {name}
    assert system.leaks(held.train, held.valid).clean
    typo = HrcPose(**{**HrcPose.smoke, "held_out": [name[:-1]]})
    assert f"did you mean '{name[:-1]}" in refusal(lambda: typo.split(replace(unsplit, split=None)))
    assert "no split is free of leaks" in refusal(lambda: system.split(replace(unsplit, instances=None)))
    assert "no training part" in refusal(lambda: system.split(replace(unsplit, split=("test",) * len(unsplit))))


def test_meshes_of_held_out_objects_are_not_rendered(parts):
    name = parts.test.instances[0]
    category = parts.test.categories[0]
    meshes = tuple(replace(procedural_mesh(category, i), name=one) for i, one in enumerate((name, "another")))
    whole = replace(parts.train.take([0, 1]), meshes=meshes)
    from kontrast.data.clouds.read import joined

    data = joined([whole, parts.test.take([0])])
    made = HrcPose(**HrcPose.smoke).split(data)
    assert [mesh.name for mesh in made.train.meshes] == ["another"]
    assert made.test.meshes == ()


def test_wrong_data_and_options_are_named(fitted, parts, tmp_path):
    other = replace(parts.test, categories=("laptop",) * len(parts.test))
    assert "'laptop', and the model knows bottle, bowl, can" in refusal(lambda: fitted.predict(other))
    blind = replace(parts.test, poses=None)
    assert "no poses" in refusal(lambda: fitted.evaluate(blind))
    assert len(fitted.predict(blind)) == len(blind)
    small = HrcPose(**{**HrcPose.smoke, "batch_size": 6})
    assert "--batch-size 9 or more" in refusal(lambda: small.fit(parts.train))
    np.savez(tmp_path / "new.npz", points=parts.test.points[:2])
    assert "--category" in refusal(lambda: fitted.read(tmp_path / "new.npz", purpose="predict"))
    assert "no poses" in refusal(lambda: like(fitted, category="can").read(tmp_path / "new.npz"))
    for options, words in (
        ({"intrinsics": [500.0, 500.0]}, "fx, fy, cx, cy"),
        ({"encoder": {"kind": "graph", "widths": [8, 8]}}, "five layers"),
        ({"encoder": {"kind": "pointnet", "widths": [0]}}, "at least 1"),
    ):
        assert words in refusal(lambda options=options: HrcPose(**options), ConfigError)


def test_two_stages_rank_first(parts):
    system = HrcPose(**{**HrcPose.smoke, "stage": "pretrain", "epochs": 1})
    system.facts_ = system.learn_facts(parts.train)
    system.initialise()
    stages = list(system.stages(parts.train, None))
    assert [stage.name for stage in stages] == ["rank", "pose"]
    assert stages[0].weights["green"] == 0
    assert stages[0].weights["rank_rotation"] == stages[1].weights["rank_rotation"] == 1
    alone = HrcPose(**{**HrcPose.smoke, "stage": "pretrain", "contrast": "off"})
    alone.facts_, alone.model_ = system.facts_, system.model_
    assert [stage.name for stage in alone.stages(parts.train, None)] == ["pose"]


def test_the_paper_preset_is_the_papers():
    config = HrcPoseConfig.preset("paper")
    assert config.encoder.widths == [128, 128, 256, 256, 512]
    assert (config.encoder.supports, config.encoder.scope, config.heads.on, config.points) == (
        7,
        "features",
        "points",
        1024,
    )


# ---- measures and baselines ------------------------------------------------------------------------------------------


def test_a_perfect_answer_has_full_marks_and_categories_count_alike(views):
    assert views.poses is not None
    few = views.take([0, 1, 2, 12, 35])
    found = all_metrics(few.poses, few, ["bowl", "can"])
    for name in ("5deg2cm", "iou75", "10deg5cm can, either end up", "10deg5cm mug", "iou75 script"):
        assert found[name] == 1.0
    weights = category_weights(few.categories)
    assert weights.sum() == pytest.approx(5)
    wrong = replace(
        few.poses, translation=few.poses.translation + np.array([[0, 0, 0.06 * (i < 3)] for i in range(5)], np.float32)
    )
    values = hits(wrong, few, ["bowl", "can"])
    assert values.mean() == pytest.approx(2 / 3)
    assert all_metrics(wrong, few, ["bowl", "can"])["10deg5cm"] == pytest.approx(2 / 3)


def test_only_stated_handles_ease_the_benchmark(views):
    unknown = replace(views, handle=np.full(len(views), UNKNOWN, np.int8))
    assert not axis_only(unknown, ["bowl", "can"])[[kind == "mug" for kind in views.categories]].any()
    assert axis_only(replace(views, handle=np.full(len(views), HIDDEN, np.int8)), []).all()


def test_chance_is_what_dealing_out_the_truth_gives_on_the_mean(fitted, parts):
    found, symmetric = fitted.estimates(parts.test).poses, fitted.config.symmetric
    values = [hits(found, fitted.permuted(parts.test, seed), symmetric).mean() for seed in range(40)]
    assert np.mean(values) == pytest.approx(fitted.chance(parts.test), abs=0.03)
    assert chance_of_pairs(parts.test.poses, parts.test, ["bottle", "bowl", "can"]) < 0.6


def test_features_that_are_the_labels_have_correlation_one(views):
    assert views.poses is not None
    place = (views.poses.translation - views.points.mean(1)).astype(np.float32)
    axes = views.poses.rotation[:, :, 1]
    estimates = Estimates(views.poses, np.ones((len(views), 2), np.float32), axes, place, axes, -place)
    found = order_correlations(estimates, views, ["bowl", "can", "mug"])
    assert all(value > 0.999 for value in found.values()), found


def test_the_mean_pose_is_right_where_all_poses_are_alike(views):
    assert views.poses is not None
    same = Poses(
        np.broadcast_to(views.poses.rotation[:1], (len(views), 3, 3)).copy(),
        views.points.mean(1) + np.array([0.01, 0.02, 0.03], np.float32),
        np.full((len(views), 3), 0.1, np.float32),
    )
    found = mean_pose(replace(views, poses=same), views)
    np.testing.assert_allclose(found.rotation, same.rotation, atol=1e-5)
    np.testing.assert_allclose(found.translation, same.translation, atol=1e-5)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_a_table_of_poses_holds_them_all(fitted, parts):
    estimates = fitted.estimates(parts.test)
    table = pose_table(parts.test, estimates)
    again = poses_of(table)
    assert np.array_equal(again.rotation, estimates.poses.rotation)
    assert np.array_equal(again.size, estimates.poses.size)
    assert (table["confidence_x"] == 0).all()


def test_a_depth_image_becomes_json_boxes_and_a_drawing(fitted, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    image = write_example_scene(tmp_path)
    system = like(fitted, category="bottle")
    data = system.read(image, purpose="predict")
    answers = system.predict(data)
    system.write_answers(answers, data, tmp_path / "poses.json")
    (one,) = json.loads((tmp_path / "poses.json").read_text())
    assert one["category"] == "bottle"
    rotation = np.array(one["R"])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    system.write_answers(answers, data, tmp_path / "out")
    drawn = np.asarray(pil.open(tmp_path / "out" / "images" / "new_depth.png"))
    assert drawn.shape == (480, 640, 3)
    assert (drawn == np.array([255, 140, 0])).all(2).any()
    assert (tmp_path / "out" / "boxes" / "new.ply").read_text().startswith("ply\nformat ascii")


def test_a_box_as_ply_has_eight_corners_and_twelve_edges(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    (tmp_path / "box.ply").write_text(box_as_ply(np.arange(24.0).reshape(8, 3)))
    assert trimesh.load(tmp_path / "box.ply").vertices.shape == (8, 3)


def test_figures_draw_predicted_and_true_boxes(fitted, parts):
    estimates = fitted.estimates(parts.test)
    figures = pose_figures(parts.test, estimates, ["bottle", "bowl", "can"])
    boxes = figures[0].plotly
    json.dumps(boxes)
    names = [trace["name"] for trace in boxes["data"]]
    assert names.count("true") == names.count("predicted") == 6
    assert {trace["scene"] for trace in boxes["data"]} == {"scene", "scene2", "scene3"}
    blind = pose_figures(replace(parts.test, poses=None), estimates, [])
    assert len(blind) == 1
    assert "true" not in [trace["name"] for trace in blind[0].plotly["data"]]


def test_a_written_example_is_read_back(path):
    data = read_clouds(path)
    assert sorted(set(data.split)) == ["test", "train", "valid"]
    assert set(data.categories) == {"bottle", "bowl", "can"}
