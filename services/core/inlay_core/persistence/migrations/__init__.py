"""Migrations of the schema, in order. Each one leaves a database that the version before can still use."""
