"""Which phantom seeds are whose: every evaluation seed has a range of its own, training sets lie beyond all of them.

The trainer itself draws whole batches from sequences of two numbers, which give other phantoms than a single number.
"""

_APART = 1_000_000
_TRAINING_FROM = 10**12


def evaluation_seeds(seed: int, count: int) -> range:
    """The phantom seeds of an evaluation seed. Raises `ValueError` where they would be another one's."""
    return _range(seed, count)


def training_seeds(seed: int, count: int) -> range:
    """The phantom seeds of a written training set; no evaluation uses any of them, whatever its seed."""
    own = _range(seed, count)
    return range(own.start + _TRAINING_FROM, own.stop + _TRAINING_FROM)


def _range(seed: int, count: int) -> range:
    if not 1 <= seed < _APART or not 0 <= count <= _APART:
        raise ValueError(f"A seed is from 1 to {_APART - 1}, and has {_APART} phantoms.")
    return range(seed * _APART, seed * _APART + count)
