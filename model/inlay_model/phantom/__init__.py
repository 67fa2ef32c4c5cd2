"""Synthetic chest radiographs whose findings are known exactly, and the reports that describe them.

A phantom is three things drawn from one seed: findings, an image that shows them, and a report that states
them. Nothing here is, or is derived from, a picture of a person.
"""
