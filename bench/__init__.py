"""What Kilonova costs: measured beside a bare floor, in one run. `python -m bench --help`."""
