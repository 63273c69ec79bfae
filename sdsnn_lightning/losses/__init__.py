"""Pure loss functions the strategies wire."""
