"""How likely head bounds are right: within 4 % of the head's height.

The chance that the top is right is a logistic function of what speaks against it. Its coefficients were fitted to heads
with known truth and many changed copies of them (hats, tufts, other proportions, names taken away; `variants.py`), each
source predicted by the others; docs/annotation-quality.md has the table that came out. A person should read the doubt
first, so the reasons come in the order of how much they cost.
"""

from __future__ import annotations

import math

from mmdgen.annotate.head import Chin
from mmdgen.annotate.records import SURE
from mmdgen.annotate.skull import PRIOR_SPREAD, REASONS, SkullTop

# Where nothing of the flat hair is seen, the share that was right in the same heads, rounded down.
UNSEEN = {"guess": 0.5, "bald": 0.6, "crown": 0.7, "face": 0.2}
BASE = 4.95
RIVAL = 2.65  # votes for a dome at another height, 1 for as many
HIGH = 1.15  # each standard deviation above the prediction: what is worn makes heads higher
# Below it nothing is worn. The procedural heads, 2 low, are right: only what is lower still is doubted.
LOW, LOW_FREE = 0.8, 2.0
FARTHEST = 3.5
LEAN = 1.3
INNER = 0.5  # a dome under something higher; "named" likewise is not the outermost plain surface
# Of 109 chins with other parts before them all were right, but all those parts had materials of their own.
PARTS_BEFORE, SPREAD, WEAK, ODD = 0.92, 0.85, 0.7, 0.6
MOST = 0.98  # more could not be shown with some hundreds of heads


def bounds_confidence(chin: Chin, top: SkullTop) -> tuple[float, tuple[str, ...]]:
    """Return the chance that chin and top are right, and the doubts in words, the weightiest first.

    There is a doubt whenever the chance is below `SURE`.
    """
    p, costs = _top(top)
    for flag, factor, words in (
        (not chin.agree, PARTS_BEFORE, "other parts lie before the chin"),
        (chin.uneven, SPREAD, "cuts beside the middle find another chin"),
        (chin.weak, WEAK, "the chin hardly stands out from the neck"),
        (chin.odd, ODD, "the chin lies unusually near or far from the mouth"),
    ):
        if flag:
            p *= factor
            costs.append((-math.log(factor), words))
    if p < SURE and not costs:
        costs.append((1.0, REASONS[top.kind]))
    return round(min(p, MOST), 3), tuple(
        words for cost, words in sorted(costs, key=lambda item: -item[0]) if cost > 0.08
    )


def _top(top: SkullTop) -> tuple[float, list[tuple[float, str]]]:
    if top.kind in UNSEEN:
        return UNSEEN[top.kind], [(9.0, f"the top is {REASONS[top.kind]}")]
    off = top.off / PRIOR_SPREAD
    high, low = min(max(off, 0.0), FARTHEST), min(max(-off - LOW_FREE, 0.0), FARTHEST)
    lost = [
        (RIVAL * top.rival, "another surface on the head, higher or lower, looks like the top as well", 0.6),
        (HIGH * high, f"the top lies {100 * top.off:.0f} % of a head higher than the face's proportions say", 1.2),
        (LOW * low, f"the top lies {-100 * top.off:.0f} % of a head lower than the face's proportions say", 0.3),
        (LEAN * min(top.lean, 1.0), "the left and right of the top differ", 0.3),
        (INNER * (top.kind in ("inner", "named")), f"the top is {REASONS[top.kind]}", 0.1),
    ]
    logit = BASE - sum(cost for cost, _, _ in lost)
    # What every head has a little of is no doubt: only what goes beyond is told.
    costs = [(cost - usual, words) for cost, words, usual in lost if cost > 2 * usual]
    if logit < math.log(SURE / (1 - SURE)) and not costs:
        costs = [(cost, words) for cost, words, _ in lost if cost > 0]
    return 1 / (1 + math.exp(-logit)), costs
