"""Networks: pure flax.linen modules with explicit fields."""
