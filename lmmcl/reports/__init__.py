"""What a sweep found: tables, plots, the page, comparisons with published figures."""
