"""Solvers of the probability flow, ours and those of other libraries, on data whose exact flow is known."""
