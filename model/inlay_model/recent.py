"""What was made and may be asked for again, on the device, under a byte budget."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What holds memory."""

    @property
    def nbytes(self) -> int:
        """How much."""
        ...


S = TypeVar("S", bound=Sized)


class Recent(Generic[S]):
    """Least-recently-used store under a byte budget, by digest."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._kept: OrderedDict[str, S] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def get(self, key: str) -> S | None:
        """What stands under this key, which thereby becomes the most recent."""
        found = self._kept.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return found

    def put(self, key: str, made: S) -> None:
        """Keep it, dropping the oldest ones beyond the budget; what is larger than it drops nothing and is not kept."""
        if made.nbytes > self._budget:
            self._kept.pop(key, None)
            return
        self._kept[key] = made
        while self._kept and self.nbytes > self._budget:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    @property
    def nbytes(self) -> int:
        """Memory held. May be asked from another thread, as Prometheus does, while things come and go."""
        return sum(made.nbytes for made in tuple(self._kept.values()))
