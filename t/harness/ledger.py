"""What a token bucket may have held at any time, from requests of which only "sent" and "answered" are known.

Used by t/nginx/test_exactness.py. All arithmetic is in whole numbers, and a request counts at whichever moment between
the two is best for what is under test: a finding is a fault however busy the machine was. Limits are full at first.
"""

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import NamedTuple

WINDOWS = 40  # begin at so many requests, evenly spread


class Limit(NamedTuple):
    amount: int
    period_ns: int
    burst: int

    # Tokens are counted in parts of 1 / period_ns, so that what comes in a nanosecond is a whole number.
    def tokens(self, count):
        return count * self.period_ns

    def gain(self, ns):
        return ns * self.amount


class Taken(NamedTuple):
    sent: int
    until: int  # when it had been decided at the latest
    cost: int


class Ledger:
    def __init__(self, limit: Limit, taken, maybe=(), held=()):
        """`taken`: was admitted. `maybe`: might have been, too. `held`: was taken perhaps, and given back by `until`."""
        self.limit = limit
        self.taken = sorted(taken, key=lambda take: take.until)
        every = sorted([*taken, *maybe], key=lambda take: take.until)
        self._until = [take.until for take in every]
        self._sum_until = [0, *accumulate(take.cost for take in every)]
        self._lowest = list(accumulate((limit.tokens(before) - limit.gain(take.until)
                                        for before, take in zip(self._sum_until, every)), min))
        self._sent, self._sum_sent = _sums(every, "sent")
        self._held_sent, self._sum_held_sent = _sums(held, "sent")
        self._held_until, self._sum_held_until = _sums(held, "until")

    def excess(self):
        """The first window in which more was admitted than rate · time + burst; None when there is none."""
        limit = self.limit
        for start in sorted(take.sent for take in self.taken)[::len(self.taken) // WINDOWS + 1]:
            total = 0
            for take in self.taken:
                if take.sent < start:
                    continue
                total += take.cost
                allowed = limit.gain(take.until - start) + limit.tokens(limit.burst)
                if limit.tokens(total) > allowed:
                    return (f"{total} admitted in {(take.until - start) / 1e9:.6f} s, "
                            f"{allowed / limit.period_ns:.3f} allowed")
        return None

    def least_left(self, sent, answered) -> float:
        """So many tokens were there at least when a request sent and answered then was decided.

        The level at t is the smallest of: burst + rate · (t - u) - what was taken from u on, over all u up to t.
        """
        limit = self.limit
        total = self._sum_sent[bisect_left(self._sent, answered)]
        done = bisect_right(self._until, sent)
        lowest = limit.tokens(self._sum_until[done]) - limit.gain(sent)
        if done > 0:
            lowest = min(lowest, self._lowest[done - 1])
        left = limit.tokens(limit.burst - total) + limit.gain(sent) + lowest
        return (left - limit.tokens(self._held(sent, answered))) / limit.period_ns

    def was_never_full(self, until) -> bool:
        """After its first take, and up to that moment: all that came in was there to be taken."""
        limit = self.limit
        full = limit.tokens(limit.burst)
        left, at = full, self.taken[0].sent if self.taken else until
        for number, take in enumerate(self.taken):
            left += limit.gain(take.until - at)
            at = take.until
            if left >= full and number > 0:
                return False
            left = min(left, full) - limit.tokens(take.cost)
        return bool(self.taken) and left + limit.gain(until - at) < full

    def shares(self, sent, answered, cost):
        """Of what was taken before a refusal of that cost. RETURNS: the share of rate · time + burst, and of the same
        less what was held just then and less `cost`, since nearly so many tokens were there that nobody could take."""
        limit = self.limit
        did = limit.tokens(self._sum_sent[bisect_left(self._sent, answered)])
        could = limit.gain(sent - self._until[0]) + limit.tokens(limit.burst)
        return did / could, did / (could - limit.tokens(cost + self._held(sent, answered)))

    def _held(self, sent, answered):
        return (self._sum_held_sent[bisect_left(self._held_sent, answered)] -
                self._sum_held_until[bisect_left(self._held_until, sent)])


def _sums(takes, field):
    """The times in their order, and the sum of the costs before each of them."""
    ordered = sorted((getattr(take, field), take.cost) for take in takes)
    return [time for time, _ in ordered], [0, *accumulate(cost for _, cost in ordered)]
