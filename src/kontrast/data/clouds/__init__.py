"""Point clouds of single objects: views, poses, meshes, and views rendered from meshes."""

from kontrast.data.clouds.cloud import CATEGORIES, HIDDEN, POINTS, SEEN, UNKNOWN, CloudSet, Poses
from kontrast.data.clouds.meshes import Mesh, read_mesh
from kontrast.data.clouds.procedural import has_recipe, procedural_mesh
from kontrast.data.clouds.read import read_clouds
from kontrast.data.clouds.rendering import Sensor, render_view, render_views

__all__ = [
    "CATEGORIES",
    "HIDDEN",
    "POINTS",
    "SEEN",
    "UNKNOWN",
    "CloudSet",
    "Mesh",
    "Poses",
    "Sensor",
    "has_recipe",
    "procedural_mesh",
    "read_clouds",
    "read_mesh",
    "render_view",
    "render_views",
]
