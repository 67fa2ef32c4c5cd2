"""What tests of several packages share: fakes, processes of real peers, sample messages."""
