"""Tensors and the tape: recorded operations, backward, gradients, parameters and their arenas.

The operations that methods of `Tensor` call live here too. It uses `expression`, `memory` and
`backends`.
"""

# The methods of `Tensor` call the operations, which return tensors: the one circle of imports there
# is. It can only be entered at its head, so this comes first, whichever module is asked for.
import rumus.tensor.graph.tensor  # noqa: F401
