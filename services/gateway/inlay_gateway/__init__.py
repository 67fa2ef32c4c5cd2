"""What speaks with other hospital systems: the MLLP listener, the outbox relay and the sweepers. No torch, no Flask."""
