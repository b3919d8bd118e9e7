"""What is to be computed: sweeps, trials, stages and steps. Pure: no torch, no ray, no file but the sweep is read."""
