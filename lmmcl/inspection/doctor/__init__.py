"""`lmmcl doctor`: whether this machine is ready to run sweeps, and what one sweep misses; changes nothing."""
