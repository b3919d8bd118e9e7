"""A recipe's additions to a model: whichever it has, and experts."""
