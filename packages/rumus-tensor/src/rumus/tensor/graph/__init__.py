"""Tensors and the tape: recorded operations, backward, gradients, parameters and their arenas.

The operations that methods of `Tensor` call live here too. It uses `expression`, `memory` and
`backends`.
"""
