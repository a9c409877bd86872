"""How ranks combine is declared on every objective."""

from typing import get_args

from kontrast.losses import objectives
from kontrast.losses._combine import combines
from kontrast.ops import Combine


def test_the_mark_leaves_the_function_as_it_is():
    def loss(x):
        return x + 1

    marked = combines("mean_of_locals")(loss)
    assert marked is loss
    assert (marked.combine, marked(1)) == ("mean_of_locals", 2)


def test_every_objective_declares_a_known_way():
    assert len(objectives()) >= 20
    assert {objective.combine for objective in objectives().values()} <= set(get_args(Combine))
