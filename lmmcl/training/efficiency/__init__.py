"""What keeps a GPU from computing what nobody needs: padding, logits of questions, activations below what trains."""
