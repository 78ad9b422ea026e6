"""The data plane of one host: compares what is there with its plan, and applies what differs.

Everything is in network namespaces of its own, and seen and changed by `ip`, `bridge`, `nft` and `tc`: what is logged
is what an operator would type.
"""
