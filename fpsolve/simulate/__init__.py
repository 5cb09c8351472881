"""The particle side: SGD itself, noisy and momentum SGD, and Euler-Maruyama of the diffusion, path by path."""
