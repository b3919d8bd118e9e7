"""Imported by each Python process of Ray in a disturbed run (this folder is on PYTHONPATH): sets up the points at which to strike."""

import os

if "LMMCL_FAULTS" in os.environ:
    import fault_points

    fault_points.follow_imports()
