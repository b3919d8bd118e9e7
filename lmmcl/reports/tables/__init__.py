"""A sweep as tables and exports."""
