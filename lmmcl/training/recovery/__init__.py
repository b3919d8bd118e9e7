"""How a stage survives faults: checksums, preemption, resume, retries, output on other nodes."""
