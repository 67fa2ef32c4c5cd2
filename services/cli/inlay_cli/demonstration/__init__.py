"""`inlay demo`: the way of an order, over the real processes; RIS, EHR and radiologist are played."""
