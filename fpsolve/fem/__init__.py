"""Discretisation: meshes, function spaces, the discrete generator and its solvers; the only place with weak forms."""
