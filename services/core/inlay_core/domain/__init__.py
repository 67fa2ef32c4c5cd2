"""The rules of reports, orders and audit. Standard library only; time, ids and randomness come in as arguments."""
