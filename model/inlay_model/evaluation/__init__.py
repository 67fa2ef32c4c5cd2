"""Evaluation: suites on phantoms and on local folders of published data sets, judges, statistics, tables and plots."""
