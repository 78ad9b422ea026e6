"""Networking without Neutron's agents: a driver inside Neutron, a role that computes, a plane on each host.

Imports nothing: Neutron's own process loads `ml2` and `plugin` from here, in an environment without our libraries.
"""
