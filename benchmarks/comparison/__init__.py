"""The comparison of all systems: which, their training runs, their figures and the report."""
