"""How ranks combine is declared on every objective."""

from typing import get_args

from kontrast.losses import objectives
from kontrast.losses._combine import combines
from kontrast.ops import Combine


def test_the_mark_keeps_name_and_values_and_gives_the_group_in_force():
    def loss(x, *, group=None):
        """Adds one."""
        return x + 1, group

    marked = combines("mean_of_locals")(loss)
    assert (marked.__name__, marked.__doc__) == ("loss", "Adds one.")
    assert (marked.combine, marked.ring) == ("mean_of_locals", True)
    assert marked(1) == (2, None)  # alone, there is no group to join
    assert not combines("gathered_candidates")(loss).ring
    assert combines("gathered_candidates", ring=True)(loss).ring


def test_every_objective_declares_a_known_way():
    assert len(objectives()) >= 20
    assert {objective.combine for objective in objectives().values()} <= set(get_args(Combine))
