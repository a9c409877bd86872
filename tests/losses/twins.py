"""Slow twins: each objective written out from its paper, in float64, row by row.

Nothing here is shared with the library. Every twin returns the loss as a float64 tensor; autograd gives its gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unit(x: Tensor, normalize: bool = True) -> Tensor:
    if not normalize:
        return x
    length = x.pow(2).sum(-1, keepdim=True)
    return torch.where(length > 0, x / torch.where(length > 0, length, 1.0).sqrt(), 0.0)


def lse(values: list[Tensor]) -> Tensor:
    """log Σ exp; −inf of nothing."""
    if not values:
        return torch.tensor(-math.inf, dtype=torch.float64)
    return torch.logsumexp(torch.stack(values), 0)


def mean(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values).mean() if values else like.sum() * 0


def info_nce(a, b, t, *, ids=None, candidate_ids=None, hard=None, log_weights=None, weights=None, normalize=True):
    a, b = unit(a, normalize), unit(b, normalize)
    if ids is not None and candidate_ids is None:
        candidate_ids = ids
    total, weight = a.sum() * 0, 0.0
    for i in range(len(a)):
        s = [a[i] @ row / t for row in b]
        negatives = []
        for j in range(len(b)):
            if j == i or (ids is not None and ids[i] == candidate_ids[j]):
                continue
            negatives.append(s[j] if log_weights is None else s[j] + log_weights[j])
        if hard is not None:
            negatives += [a[i] @ row / t for row in unit(hard[i], normalize)]
        w = 1.0 if weights is None else float(weights[i])
        total = total + w * (lse([s[i], *negatives]) - s[i])
        weight += w
    return total / weight


def clip(a, b, t, *, ids=None, weights=None, normalize=True):
    return (
        info_nce(a, b, t, ids=ids, weights=weights, normalize=normalize)
        + info_nce(b, a, t, ids=ids, weights=weights, normalize=normalize)
    ) / 2


def _joint(a, b, t, normalize=True):
    """For each of 2n rows: its positive logit, and the logits of its negatives in both views."""
    z = unit(torch.cat([a, b]), normalize)
    n = len(a)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        yield z[i] @ z[partner] / t, [z[i] @ z[j] / t for j in range(2 * n) if j not in (i, partner)]


def nt_xent_views(a, b, t, *, normalize=True):
    return mean([lse([s, *negatives]) - s for s, negatives in _joint(a, b, t, normalize)], a)


def dcl_joint(a, b, t):
    return mean([lse(negatives) - s for s, negatives in _joint(a, b, t) if negatives], a)


def dcl_separate(a, b, t):
    def one_way(x, y):
        x, y = unit(x), unit(y)
        rows = range(len(x))
        return mean([lse([x[i] @ y[j] / t for j in rows if j != i]) - x[i] @ y[i] / t for i in rows if len(x) > 1], x)

    return (one_way(a, b) + one_way(b, a)) / 2


def hard_negatives(a, b, t, *, beta, tau):
    """2010.04592 and 2007.00224 in plain exponentials, shifted by a constant that cancels."""
    losses = []
    for s, negatives in _joint(a, b, t):
        if not negatives:
            losses.append(s * 0)
            continue
        shift = torch.stack([s, *negatives]).max().detach()
        count = len(negatives)
        e = torch.exp(torch.stack(negatives) - shift)
        harder = torch.exp(beta * (torch.stack(negatives) - shift))
        positive = torch.exp(s - shift)
        raw = (harder * e).sum() / harder.mean()
        corrected = (raw - count * tau * positive) / (1 - tau)
        floor = count * torch.exp(-1 / t - shift)
        g = torch.maximum(corrected, floor)
        losses.append(-torch.log(positive / (positive + g)))
    return mean(losses, a)


def labelled(z, labels, t, *, denominator="all", placement="out", by="anchors", ids=None, weights=None, normalize=True):
    """SupCon and NT-Xent with labels: −log exp(s)/D per positive pair, averaged by anchors or by pairs."""
    z = unit(z, normalize)
    total, weight = z.sum() * 0, 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [z[i] @ z[j] / t for j in others if labels[j] == labels[i]]
        negatives = [z[i] @ z[j] / t for j in others if labels[j] != labels[i] and (ids is None or ids[i] != ids[j])]
        if not positives or (denominator == "negatives" and not negatives):
            continue
        below = {
            "all": lambda s, p=positives, n=negatives: lse(p + n),
            "own_positive": lambda s, n=negatives: lse([s, *n]),
            "negatives": lambda s, n=negatives: lse(n),
        }[denominator]
        if placement == "out":
            loss = torch.stack([below(s) - s for s in positives]).mean()
        else:
            loss = below(None) - lse(positives) + math.log(len(positives))
        w = (1.0 if weights is None else float(weights[i])) * (len(positives) if by == "pairs" else 1)
        total, weight = total + w * loss, weight + w
    return total / weight if weight else total


def listed(a, b, lists, t, *, placement="in", denominator="all", known=(), pair_weights=None):
    """MIL-NCE ("in") and its mean over listed positives ("out"); pair_weights maps (i, j) to a weight."""
    a, b = unit(a), unit(b)
    losses = []
    for i, positives in enumerate(lists):
        if not positives:
            continue
        s = [a[i] @ row / t for row in b]
        w = [1.0 if pair_weights is None else pair_weights[i, j] for j in positives]
        negatives = [s[j] for j in range(len(b)) if j not in positives and (i, j) not in known]
        weighted = [s[j] + math.log(v) for j, v in zip(positives, w)]
        if denominator == "negatives" and not negatives:
            continue
        if placement == "in":
            below = lse(negatives) if denominator == "negatives" else lse(weighted + negatives)
            losses.append(below - lse(weighted))
        else:
            below = {
                "all": lambda j, p=weighted, n=negatives: lse(p + n),
                "own_positive": lambda j, n=negatives, s=s: lse([s[j], *n]),
                "negatives": lambda j, n=negatives: lse(n),
            }[denominator]
            losses.append(sum(v * (below(j) - s[j]) for j, v in zip(positives, w)) / sum(w))
    return mean(losses, a)


def prototypes(z, labels, c, c_labels, t, *, placement="in"):
    z, c = unit(z), unit(c)
    losses = []
    for i in range(len(z)):
        s = [z[i] @ row / t for row in c]
        own = [s[j] for j in range(len(c)) if c_labels[j] == labels[i]]
        if own:
            top = lse(own) if placement == "in" else torch.stack(own).mean()
            losses.append(lse(s) - top)
    return mean(losses, z)


def queue(q, k, past, t, *, ids=None, past_ids=None):
    q, k, past = unit(q), unit(k), unit(past)
    losses = []
    for i in range(len(q)):
        s = q[i] @ k[i] / t
        negatives = [q[i] @ past[j] / t for j in range(len(past)) if ids is None or ids[i] != past_ids[j]]
        losses.append(lse([s, *negatives]) - s)
    return mean(losses, q)


def sigmoid(a, b, t, bias, *, ids=None):
    a, b = unit(a), unit(b)
    total = a.sum() * 0
    for i in range(len(a)):
        for j in range(len(b)):
            if i != j and ids is not None and ids[i] == ids[j]:
                continue
            x = (a[i] @ b[j] / t + bias) * (1 if i == j else -1)
            total = total + torch.logaddexp(-x, torch.zeros_like(x))
    return total / len(a)
