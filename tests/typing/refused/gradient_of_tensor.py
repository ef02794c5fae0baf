"""A store holds only gradients of parameters."""

from rumus.tensor import GradientStore, tensor

activation = tensor([1.0])
# error: Invalid index type "Tensor" for "GradientStore"; expected type "Parameter"  [index]
GradientStore()[activation]
# error: Argument 1 to "take" of "GradientStore" has incompatible type "Tensor"; expected "Parameter"  [arg-type]
GradientStore().take(activation)
