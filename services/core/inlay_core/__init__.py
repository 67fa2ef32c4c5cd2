"""The shared heart of Inlay: the domain, its use cases and their persistence. No process of its own."""
