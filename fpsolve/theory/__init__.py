"""What is known without a mesh: the papers' theorems with rigorously checked hypotheses.

`balls` holds small interval linear algebra in Arb balls, `cover` encloses domains by boxes, `search` is the
best-first branch and bound, `constants` bounds λ, σ, β, Λ and their companions, `radial` evaluates the comparison
functions of the theorems with outward rounding, `candidates` chooses centres, radii and directions from samples
(nothing there is trusted), and `bounds` puts hypotheses and bound together as objects.
"""
