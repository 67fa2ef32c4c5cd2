"""The command line `inlay`; each command imports what it needs when it runs."""
