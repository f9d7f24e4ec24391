"""Model cards, the parameters that they allow, and the engines that serve them."""
