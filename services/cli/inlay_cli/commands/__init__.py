"""One module per command; each has `main(arguments) -> exit code` and imports what is heavy inside it."""
