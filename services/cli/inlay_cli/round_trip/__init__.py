"""`inlay bench round-trip`: the time from outside, by stage, beside the time that the model itself took."""
