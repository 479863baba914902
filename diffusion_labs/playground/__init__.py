"""A page on which a trained model is played with: draw, inpaint, and compare samplers."""
