"""Scenarios: what analyses look for, one file each. `agent.analysis.scenario` tells how they are written."""
