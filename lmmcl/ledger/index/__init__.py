"""An index of the records of a store: many records in one file, so that looking at a large sweep is a few reads."""
