"""Where models come from besides those that ship: ids of the hub, adapters over a base."""
