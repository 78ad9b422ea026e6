"""The whole cloud in one thread, on a clock, a network and a scheduler that a seed decides; see docs/reliability.md."""
