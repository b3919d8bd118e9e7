"""Ray Train as an adapter: worker groups around the same stage that one process or torchrun trains without Ray."""
