"""Tensors and the tape: recorded operations, backward, gradients, parameters and their arenas.

The operations that methods of `Tensor` call are here too. This room uses `expression`, `memory` and
`backends`.
"""

# The methods of `Tensor` call the operations, which return tensors: the only import cycle
# here. It can only be entered at its head, so this comes first, whichever module is imported.
import rumus.tensor.graph.tensor  # noqa: F401
