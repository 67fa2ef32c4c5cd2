"""Readers of published data sets from a local folder in the layout in which they are published. No data is shipped."""
