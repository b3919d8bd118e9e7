"""From dialogues and pictures to tensors: chat templates and processors."""
