"""Between HL7 v2 and Inlay's domain: orders, patients and prior reports in, reports out. Only this package knows both.

Where a sender puts its values is configuration (`places`). What is not understood is refused with its place, never
guessed.
"""
