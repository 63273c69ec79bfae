"""Trained students as files that run elsewhere: a streaming program, a NIR graph, plain weights and a card."""
