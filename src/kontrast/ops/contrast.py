"""One function for every softmax-type objective: anchors, candidates, a temperature and a rule."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from kontrast.ops.diagnostics import Diagnostics, note
from kontrast.ops.gather import Group, gather_rows, group_in_force, joined_mean, joined_sum, rank_count
from kontrast.ops.inputs import working_inputs
from kontrast.ops.masks import Mask
from kontrast.ops.positives import LabelledPositives, ListedPositives, PositiveTerms
from kontrast.ops.ring import RingPositives, logaddexp, others_logsumexp
from kontrast.ops.rule import Labels, Paired, Pairs, Rule
from kontrast.ops.settings import Products, current_settings
from kontrast.ops.streamed import logsumexp_streamed


def contrast(
    anchors: Tensor,
    candidates: Tensor | None,
    rule: Rule,
    *,
    temperature: float | Tensor = 1.0,
    normalize: bool = False,
    hard_negatives: Tensor | None = None,
    log_weights: Tensor | None = None,
    anchor_weights: Tensor | None = None,
    products: Products = "fp32",
    group: Group = None,
    gather: bool = True,
) -> Tensor:
    """The loss of anchors against candidates under a rule.

    Args:
        anchors: (n, d), any floating type; computed in float32, in float64 if the inputs are float64 or if ‖a‖‖c‖/T can
            exceed 256, where float32 products are no longer exact enough.
        candidates: (m, d), or None where the anchors are each other's candidates.
        rule: who is positive, who is left out, which denominator and reduction.
        temperature: positive, a float or a scalar tensor that receives a gradient.
        normalize: whether to divide rows by their length first (a zero row stays zero).
        hard_negatives: (n, k, d), further negatives of each anchor alone ("forward" direction).
        log_weights: (m,), added to the logits of candidates as negatives (the −log q of a sampled softmax).
        anchor_weights: (n,), non-negative weights of the anchors in the reduction.
        products: "fp32", or "bf16": matrix products of bf16-rounded rows with float32 sums, where they leave less than
            about 7e-3 of error in a logit (‖a‖‖c‖/T ≤ 3.6 √d) and there is no hardness; otherwise "fp32" all the same.
        group: ranks whose candidates come in, all at once or on a ring (`EngineSettings.gather`); None means the group
            in force. See `kontrast.ops.gather` for the convention.
        gather: False leaves each rank its own candidates (a queue, prototypes) and joins only the reduction.

    Returns:
        A scalar, or (n,) with reduction "none" ((2n,) if the partition is joint). How many anchors had no positive is
        told by `kontrast.ops.record_diagnostics`.

    Raises:
        ValueError: if shapes or types do not fit, or an anchor has no positive and the rule says "error".
    """
    _check(anchors, candidates, rule, hard_negatives, log_weights, anchor_weights)
    group = group_in_force(group)
    with torch.autocast(anchors.device.type, enabled=False):
        out_type = torch.promote_types(anchors.dtype, torch.float32)
        a, c, h = (None if x is None else x.to(out_type) for x in (anchors, candidates, hard_negatives))
        (a, c, h), t, products = working_inputs(
            (a, c, h),
            temperature,
            normalize=normalize,
            products="fp32" if rule.hardness else products,  # hardness takes differences, which enlarge the error
            sharpness=1 + rule.hardness,
            group=group,
        )
        assert a is not None
        ranks = group if gather else None
        ring = ranks if current_settings().gather == "ring" and rank_count(ranks) > 1 else None
        if ring is not None:
            ranks = None  # each rank's own candidates are computed as on one process, the others' are added to that
        sides = [side.on_ring(ring) for side in _sides(a, c, rule, t, ranks, both_at_once=ring is None)]
        if h is not None:
            sides[0].hard = torch.einsum("nd,nkd->nk", a / t, h)
        if log_weights is not None:
            weights, _ = gather_rows(log_weights.to(a.dtype), ranks)
            sides[0] = sides[0].with_log_weights(weights)
        total = _reduce(sides, rule, 1 / t, products, anchor_weights, group)
        return total.to(out_type)


@dataclass
class _Side:
    """Anchors q against candidates k (None: q itself, symmetric), the temperature folded in."""

    q: Tensor
    k: Tensor | None
    mask: Mask
    positives: PositiveTerms
    hard: Tensor | None = None
    transposed: PositiveTerms | None = None  # the same logits serve the candidates as anchors, too
    ring: dist.ProcessGroup | None = None  # ranks on which further candidates travel

    def on_ring(self, ring: dist.ProcessGroup | None) -> _Side:
        """The side with the candidates of other ranks, too."""
        positives = self.positives
        if ring is not None and isinstance(positives, LabelledPositives):
            positives = RingPositives(**vars(positives), group=ring)
        return replace(self, positives=positives, ring=ring)

    def logsumexp(
        self, q: Tensor, k: Tensor | None, *, rows: bool = True, columns: bool = False,
        multipliers: tuple[float, ...] = (1.0,), products: Products = "fp32",
    ) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
        """The side's log-sums over rows and columns of Q Kᵀ, whatever the q and k."""
        own, turned = logsumexp_streamed(
            q, k, mask=self.mask, rows=rows, columns=columns, multipliers=multipliers, products=products
        )
        if self.ring is not None and own is not None:
            others = others_logsumexp(
                q, q if k is None else k, self.mask.keys, self.ring, multipliers=multipliers, products=products
            )
            own = logaddexp(own, others)
        return own, turned

    def with_log_weights(self, weights: Tensor) -> _Side:
        """A candidate's log-weight is one more coordinate, with 1 on the anchors' side."""
        k = self.q if self.k is None else self.k
        q = torch.cat([self.q, self.q.new_ones(len(self.q), 1)], 1)
        return replace(self, q=q, k=torch.cat([k, weights[:, None]], 1))


def _sides(
    a: Tensor, c: Tensor | None, rule: Rule, t: Tensor, group: Group, *, both_at_once: bool = True
) -> list[_Side]:
    if rule.partition == "joint":
        assert c is not None
        return [_joint_side(a, c, rule, t, group)]
    if c is None:
        return [_self_side(a, rule, t, group)]
    if group is None and both_at_once and rule.directions == "both":
        forward = _cross_side(a, c, rule, t, None)
        forward.transposed = _cross_side(c, a, _turned(rule), t, None, scaled=False).positives
        return [forward]
    sides = []
    if rule.directions in ("forward", "both"):
        sides.append(_cross_side(a, c, rule, t, group))
    if rule.directions in ("backward", "both"):
        sides.append(_cross_side(c, a, _turned(rule), t, group))
    return sides


def _turned(rule: Rule) -> Rule:
    """The rule with candidates as anchors."""

    def turn(pairs: Pairs | None) -> Pairs | None:
        return None if pairs is None else Pairs(pairs.columns, pairs.rows, pairs.weights)

    positives = rule.positives
    if isinstance(positives, Labels):
        assert positives.candidates is not None
        positives = Labels(positives.candidates, positives.anchors)
    elif isinstance(positives, Pairs):
        positives = Pairs(positives.columns, positives.rows, positives.weights)
    ids = None if rule.ids is None else (rule.ids[0] if rule.ids[1] is None else rule.ids[1], rule.ids[0])
    return replace(rule, positives=positives, ids=ids, known=turn(rule.known))


def _cross_side(a: Tensor, c: Tensor, rule: Rule, t: Tensor, group: Group, *, scaled: bool = True) -> _Side:
    q = a / t
    k, start = gather_rows(c, group)
    keys = _id_keys(rule, group)
    known = _shifted(rule.known, start)
    positives = rule.positives
    if isinstance(positives, Labels):
        assert positives.candidates is not None
        row, column = positives.anchors, gather_rows(positives.candidates, group)[0]
        mask = Mask(keys=((row, column), *keys), pairs=known)
        return _Side(q, k, mask, LabelledPositives(q, k, row, column, None))
    if isinstance(positives, Paired):
        rows = torch.arange(min(len(a), len(c)), device=a.device)
        if not positives.others:
            beyond = torch.arange(len(k), device=a.device) >= len(a)
            keys = ((torch.zeros(len(a), dtype=torch.long, device=a.device), beyond.long()), *keys)
        mask = Mask(diagonals=() if len(rows) == 0 else (start,), keys=keys, pairs=known)
        paired = ListedPositives(q, k, rows, rows + start, each_once=len(rows) == len(a))
        return _Side(q, k, mask, paired)
    columns = positives.columns + start
    mask = Mask(keys=keys, pairs=_joined(known, (positives.rows, columns)))
    return _Side(q, k, mask, ListedPositives(q, k, positives.rows, columns, positives.weights))


def _self_side(a: Tensor, rule: Rule, t: Tensor, group: Group) -> _Side:
    keys = _id_keys(rule, group)
    positives = rule.positives
    if isinstance(positives, Labels) and group is None and rule.known is None:
        # S is symmetric once the temperature is shared out evenly, and then half of it is enough.
        q = a / t.sqrt()
        labels = (positives.anchors, positives.anchors)
        mask = Mask(diagonals=(0,), keys=(labels, *keys))
        return _Side(q, None, mask, LabelledPositives(q, None, *labels, 0))
    q = a / t
    k, start = gather_rows(a, group)
    known = _shifted(rule.known, start)
    if isinstance(positives, Labels):
        labels = (positives.anchors, gather_rows(positives.anchors, group)[0])
        mask = Mask(diagonals=(start,), keys=(labels, *keys), pairs=known)
        return _Side(q, k, mask, LabelledPositives(q, k, *labels, start))
    assert isinstance(positives, Pairs)
    columns = positives.columns + start
    mask = Mask(diagonals=(start,), keys=keys, pairs=_joined(known, (positives.rows, columns)))
    return _Side(q, k, mask, ListedPositives(q, k, positives.rows, columns, positives.weights))


def _joint_side(a: Tensor, b: Tensor, rule: Rule, t: Tensor, group: Group) -> _Side:
    n = len(a)
    rows = torch.arange(n, device=a.device)
    if group is None:
        q = torch.cat([a, b]) / t.sqrt()
        ids = () if rule.ids is None else ((_twice(rule.ids), _twice(rule.ids)),)
        mask = Mask(diagonals=(0, n, -n), keys=ids)
        both, partner = torch.cat([rows, rows + n]), torch.cat([rows + n, rows])
        return _Side(q, None, mask, ListedPositives(q, q, both, partner, each_once=True))
    q = torch.cat([a, b]) / t
    (all_a, start), (all_b, _) = gather_rows(a, group), gather_rows(b, group)
    k, total = torch.cat([all_a, all_b]), len(all_a)
    both = torch.cat([rows, rows + n])
    own = torch.cat([rows + start, rows + start + total])
    partner = torch.cat([rows + start + total, rows + start])
    keys: tuple[tuple[Tensor, Tensor], ...] = ()
    if rule.ids is not None:
        first, second = rule.ids[0], rule.ids[0] if rule.ids[1] is None else rule.ids[1]
        gathered = torch.cat([gather_rows(first, group)[0], gather_rows(second, group)[0]])
        keys = ((torch.cat([first, second]), gathered),)
    mask = Mask(keys=keys, pairs=(torch.cat([both, both]), torch.cat([own, partner])))
    return _Side(q, k, mask, ListedPositives(q, k, both, partner, each_once=True))


def _twice(ids: tuple[Tensor, Tensor | None]) -> Tensor:
    return torch.cat([ids[0], ids[0] if ids[1] is None else ids[1]])


def _id_keys(rule: Rule, group: Group) -> tuple[tuple[Tensor, Tensor], ...]:
    if rule.ids is None:
        return ()
    rows, columns = rule.ids
    return ((rows, gather_rows(rows if columns is None else columns, group)[0]),)


def _shifted(pairs: Pairs | None, start: int) -> tuple[Tensor, Tensor] | None:
    return None if pairs is None else (pairs.rows, pairs.columns + start)


def _joined(first: tuple[Tensor, Tensor] | None, second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return second if first is None else (torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))


def _reduce(
    sides: list[_Side], rule: Rule, scale: Tensor, products: Products, anchor_weights: Tensor | None, group: Group
) -> Tensor:
    means, anchors, skipped, pairs = [], 0, 0, 0
    for side in sides:
        for losses, positives in _losses(side, rule, scale, products):
            valid = positives.count > 0
            if rule.denominator == "negatives":
                valid = valid & (losses > -math.inf)
            anchors += len(losses)
            skipped += len(losses) - int(valid.sum())
            pairs += int(positives.count.sum())
            means.append(_reduced(losses, valid, positives, rule, anchor_weights, group))
    note(Diagnostics(anchors, skipped, pairs))
    if skipped and rule.no_positive == "error":
        raise ValueError(f"{skipped} of {anchors} anchors have no positive, and the rule says no_positive='error'")
    if anchors and skipped == anchors and group is None:
        text = f"none of {anchors} anchors has a positive: the loss is 0 and teaches nothing"
        warnings.warn(text, RuntimeWarning, stacklevel=5)
    return means[0] if len(means) == 1 else torch.stack(means).mean()


def _reduced(
    losses: Tensor, valid: Tensor, positives: PositiveTerms, rule: Rule, anchor_weights: Tensor | None, group: Group
) -> Tensor:
    if rule.reduction == "none":
        out = torch.where(valid, losses, math.nan)
        return out if anchor_weights is None else out * _fitted(anchor_weights, losses)
    losses = torch.where(valid, losses, 0.0)
    weights = torch.ones_like(losses) if anchor_weights is None else _fitted(anchor_weights, losses)
    if rule.reduction == "pairs":
        weights = weights * positives.weight
    total = (losses * weights).sum()
    if rule.reduction == "sum":
        return joined_sum(total, group)
    counted = weights if rule.reduction == "anchors" else weights * valid
    return joined_mean(total, counted.sum(), group)


def _fitted(weights: Tensor, losses: Tensor) -> Tensor:
    repeats = len(losses) // max(len(weights), 1)
    return weights.to(losses.dtype).repeat(repeats)


def _losses(side: _Side, rule: Rule, scale: Tensor, products: Products) -> list[tuple[Tensor, PositiveTerms]]:
    """Per-anchor losses (n,), and for the candidates as anchors (m,) where the side serves both directions."""
    beta = rule.hardness
    multipliers = (1.0,) if not beta else (1.0 + beta, beta)
    rows, columns = side.logsumexp(
        side.q, side.k, columns=side.transposed is not None, multipliers=multipliers, products=products
    )
    assert rows is not None
    out = [_one_direction(rows, side.hard, side.positives, rule, scale, side, turned=False)]
    if columns is not None and side.transposed is not None:
        out.append(_one_direction(columns, None, side.transposed, rule, scale, side, turned=True))
    return out


def _one_direction(
    logs: Tensor, hard: Tensor | None, positives: PositiveTerms, rule: Rule, scale: Tensor, side: _Side, *, turned: bool
) -> tuple[Tensor, PositiveTerms]:
    if hard is not None:
        betas = (1.0,) if not rule.hardness else (1.0 + rule.hardness, rule.hardness)
        logs = torch.stack([logaddexp(log, torch.logsumexp(hard * beta, 1)) for log, beta in zip(logs, betas)])
    negatives = logs[0]
    if rule.hardness or rule.debias:
        count = _negative_count(side, turned=turned) + (0 if hard is None else hard.shape[1])
        negatives = _reweighted(logs, count, positives, rule, scale)
    return _pair_losses(negatives, positives, rule), positives


def _pair_losses(negatives: Tensor, positives: PositiveTerms, rule: Rule) -> Tensor:
    if rule.denominator == "own_positive":
        return positives.own_denominator(negatives)
    if not rule.inside:
        mean = positives.mean_logit()
        if rule.denominator == "negatives":
            return negatives - mean
        log_positives = positives.logsumexp()
        return F.softplus(negatives - log_positives) + (log_positives - mean)
    log_positives = positives.logsumexp()
    loss = negatives - log_positives if rule.denominator == "negatives" else F.softplus(negatives - log_positives)
    return loss + positives.weight.clamp(min=1e-30).log() if rule.inside == "mean" else loss


def _negative_count(side: _Side, *, turned: bool) -> Tensor:
    # exp(0) summed over the negatives counts them, whatever the mask.
    k = side.q if side.k is None else side.k
    rows, columns = side.logsumexp(
        side.q.new_zeros(len(side.q), 1), k.new_zeros(len(k), 1), rows=not turned, columns=turned
    )
    log = columns if turned else rows
    assert log is not None
    return log[0].exp()


def _reweighted(logs: Tensor, count: Tensor, positives: PositiveTerms, rule: Rule, scale: Tensor) -> Tensor:
    """log of the negatives' sum after hardness weights (2010.04592 eq. 4) and debiasing (2007.00224 eq. 8)."""
    some = count > 0
    count = torch.where(some, count, 1.0)
    logs = torch.where(some, logs, 0.0)
    log = logs[0] if not rule.hardness else logs[0] - logs[1] + count.log()
    if rule.debias:
        tau = rule.debias
        # log(exp(L) − τ⁺ N exp(s⁺)) as L plus the logarithm of what is left of it, where anything is left.
        share = math.log(tau) + count.log() + positives.mean_logit() - log
        left = torch.log(-torch.expm1(share.clamp(max=-1e-7)))
        floor = count.log() - scale
        corrected = log + left - math.log(1 - tau)
        log = torch.where((share < -1e-7) & (corrected > floor), corrected, floor)
    return torch.where(some, log, -math.inf)


def _check(
    anchors: Tensor,
    candidates: Tensor | None,
    rule: Rule,
    hard: Tensor | None,
    log_weights: Tensor | None,
    anchor_weights: Tensor | None,
) -> None:
    for name, x, dims in (("anchors", anchors, 2), ("candidates", candidates, 2), ("hard_negatives", hard, 3)):
        if x is None:
            continue
        if x.dim() != dims or not x.is_floating_point():
            shape = tuple(x.shape)
            raise ValueError(f"{name} must be a floating tensor of {dims} dimensions, got {x.dtype} of shape {shape}")
        if x.shape[-1] != anchors.shape[-1]:
            widths = x.shape[-1], anchors.shape[-1]
            raise ValueError(f"{name} has rows of width {widths[0]}, anchors of width {widths[1]}; they must agree")
    n, m = len(anchors), len(anchors if candidates is None else candidates)
    if hard is not None and len(hard) != n:
        raise ValueError(f"hard_negatives has {len(hard)} rows and anchors {n}; each anchor needs its own")
    if log_weights is not None and log_weights.shape != (m,):
        raise ValueError(f"log_weights has shape {tuple(log_weights.shape)}, candidates need ({m},)")
    if anchor_weights is not None and anchor_weights.shape != (n,):
        raise ValueError(f"anchor_weights has shape {tuple(anchor_weights.shape)}, anchors need ({n},)")
    positives = rule.positives
    if candidates is None and isinstance(positives, Paired):
        raise ValueError("paired positives need candidates; give the second view")
    if isinstance(positives, Paired) and (rule.directions != "forward" or rule.partition == "joint") and n != m:
        raise ValueError(f"{n} anchors and {m} candidates cannot be paired in both directions; sizes must be equal")
    if isinstance(positives, Paired) and m < n:
        raise ValueError(f"{n} anchors need at least as many paired candidates, got {m}")
    if isinstance(positives, Labels):
        if candidates is not None and positives.candidates is None:
            raise ValueError("Labels needs the candidates' labels, too")
        if rule.known is not None:
            raise ValueError("known pairs go with paired or listed positives; with labels give ids")
        _check_codes("labels", positives.anchors, n)
        if positives.candidates is not None:
            _check_codes("the candidates' labels", positives.candidates, m)
    if rule.ids is not None:
        _check_codes("ids", rule.ids[0], n)
        _check_codes("the candidates' ids", rule.ids[0] if rule.ids[1] is None else rule.ids[1], m)
    for pairs in (positives if isinstance(positives, Pairs) else None, rule.known):
        if pairs is not None:
            _check_pairs(pairs, n, m)


def _check_codes(name: str, codes: Tensor, length: int) -> None:
    if codes.shape != (length,):
        raise ValueError(f"{name} have shape {tuple(codes.shape)}, the rows need ({length},)")
    if codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"{name} must be integers, got {codes.dtype}")


def _check_pairs(pairs: Pairs, n: int, m: int) -> None:
    if pairs.rows.shape != pairs.columns.shape or pairs.rows.dim() != 1:
        shapes = tuple(pairs.rows.shape), tuple(pairs.columns.shape)
        raise ValueError(f"pairs have rows of shape {shapes[0]} and columns of shape {shapes[1]}; one of each per pair")
    for name, index, size in (("rows", pairs.rows, n), ("columns", pairs.columns, m)):
        if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise ValueError(f"{name} of pairs lie in {int(index.min())}..{int(index.max())}, allowed is 0..{size - 1}")
