"""Post-hoc mitigations: rules that merge checkpoints after a stage."""
