"""Use cases as functions: load, ask the domain, save, record; one transaction each."""
