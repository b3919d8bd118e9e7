"""The runner on a Ray cluster: Tune trials as drivers, one actor for the steps, tasks for the work."""
