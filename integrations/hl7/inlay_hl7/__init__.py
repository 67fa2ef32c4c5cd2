"""HL7 v2 over MLLP: framing, messages, acknowledgements, results, a server and a client.

Everything but `server`, `client` and `mapping` is a function of bytes; only `mapping` knows Inlay's domain.
"""
