"""What is known without a mesh: the papers' theorems with rigorously checked hypotheses.

`bounds` is what callers use. The theorems with their proofs are in `lower` and `upper`, the bound as an object in
`theorem`, the functions it evaluates in `profiles` and `radial` (outward rounding). `constants` and `slopes` bound λ,
σ, β, Λ and their companions by best-first branch and bound (`search`) over boxes that cover the domain (`cover`) in Arb
balls (`balls`). `candidates` chooses centres, radii and directions from samples; nothing there is trusted.
"""
