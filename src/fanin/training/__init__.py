"""Training: what one step computes, the data it is fed with, the loop around it, and what the user sees of it."""
