"""Fault drills: a whole Inlay of real processes under load, a fault, and what the database says afterwards."""
