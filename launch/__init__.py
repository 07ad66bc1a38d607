"""What people run: the commands, data in and out, exploiters, audits, reports, clusters."""
