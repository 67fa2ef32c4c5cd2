"""A drill that this machine does not permit."""


class Skipped(RuntimeError):
    """Says what is not permitted; the drill counts neither as held nor as broken."""
