"""The sweep itself: plan what is missing, ensure every step once, walk the trials, follow them in MLflow."""
