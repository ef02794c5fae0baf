"""A kernel, printed as WGSL.

An invocation computes four adjacent elements. The text depends on the kernel, the layouts and the
dtypes; sizes and scalars are members of `k`, so new values need no new compilation. This is the
third reader of a `Kernel`, after `numpy_program` and `numba_backend`: all walk the same nodes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rumus.gpu.device.layout import Layout
from rumus.gpu.device.pipelines import Program
from rumus.gpu.device.shaders import prelude
from rumus.gpu.device.stored import VALUE, Kind, Stored, converted, stored_types, vector
from rumus.tensor import Expr, Kernel, float32
from rumus.tensor.expression.kernel import COMPARISONS, Types
from rumus.tensor.memory.slot_table import ALIGNMENT

WORKGROUP: Final = 128  # invocations of one vec4 each; with 64, a copy is a quarter slower

OPERATIONS: Final[Mapping[str, str]] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "pow": "power({0}, {1})",
    "abs": "abs({0})",
    "sign": "sign_of({0})",
    "exp": "exponential({0})",
    "log": "logarithm({0})",
    "log1p": "logarithm_1_plus({0})",
    "expm1": "exponential_minus_1({0})",
    "sqrt": "square_root({0})",
    "sin": "sine({0})",
    "cos": "cosine({0})",
    "tanh": "hyperbolic_tangent({0})",
    "erf": "error_function({0})",
    "sigmoid": "logistic({0})",
    "softplus": "softplus({0})",
    "relu": "relu({0})",
    "floor": "floor_of({0})",
    "floor_divide": "floor_quotient({0}, {1})",
    "mod": "modulo({0}, {1})",
    "maximum": "maximum({0}, {1})",
    "minimum": "minimum({0}, {1})",
    "lt": "less({0}, {1})",
    "le": "less_equal({0}, {1})",
    "eq": "equal({0}, {1})",
    "where": "select({2}, {1}, {0})",
}
INTEGERS: Final[Mapping[str, str]] = {
    "pow": "integer_power({0}, {1})",
    "sign": "sign({0})",
    "relu": "max({0}, vec4<i32>(0))",
    "floor_divide": "integer_floor_quotient({0}, {1})",
    "mod": "integer_modulo({0}, {1})",
    "maximum": "max({0}, {1})",
    "minimum": "min({0}, {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "eq": "({0} == {1})",
}
_SIGNS: Final = {
    "add": ("+", 1),
    "sub": ("-", 1),
    "mul": ("*", 2),
    "div": ("/", 2),
    "pow": ("**", 3),
}
TRUTHS: Final[Mapping[str, str]] = {"maximum": "{0} | {1}", "minimum": "{0} & {1}"}

_LOADS: Final[Mapping[str, str]] = {
    "same": "{a}[i]",
    "row": "{a}[i % k.{a}_length]",
    "scalar": "{v}({a}[k.{a}_start])",
    "one": "{v}({a}[0])",
    "column": "{v}({a}[i / k.{a}_repeats])",
    "slot": f"{{v}}({{a}}[i / {ALIGNMENT // 4}u])",
    **dict.fromkeys(
        ("cycle", "block"),
        "{v}({a}[{a}_at(4u * i)], {a}[{a}_at(4u * i + 1u)], "
        "{a}[{a}_at(4u * i + 2u)], {a}[{a}_at(4u * i + 3u)])",
    ),
}
_AT: Final[Mapping[str, str]] = {
    "cycle": "k.{a}_start + (i / k.{a}_repeats) % k.{a}_length",
    "block": "(i / k.{a}_every) % k.{a}_count * k.{a}_length + i % k.{a}_length",
}


@dataclass(frozen=True, slots=True)
class KernelOperand:
    """One array of a kernel: how it is stored and walked, and whether its buffer is written."""

    stored: Stored
    layout: Layout
    is_written: bool


def is_updated(kernel: Kernel, output: str) -> bool:
    """Whether an output is an input, updated in place."""
    return output in kernel.arrays


def elementwise_program(
    kernel: Kernel, types: Types, inputs: Sequence[KernelOperand], outputs: Sequence[Stored]
) -> Program:
    """Return the WGSL of `kernel`.

    Its bindings are the inputs, then the outputs that are not inputs; `k` holds the number of
    vectors, the elements of a partial last vector, the numbers of the layouts and the kernel's
    uniforms.
    """
    return _Printer(kernel, types, inputs, outputs).program()


def update_program(
    kernel: Kernel, types: Types, stored: Sequence[Stored], layouts: Sequence[Layout] = ()
) -> Program:
    """Return the WGSL of a kernel that updates arrays of whole vectors, if the device accepts it.

    stored: how each array of the kernel is stored. layouts: how each is walked: "same", or "one",
    "slot" or "block" if it is only read; by default all "same".
    Its bindings are the arrays and the control block of `decide.wgsl`, whose first word is nonzero
    if the step is applied; `k` holds the number of vectors, the position of the uniforms in that
    block, and the numbers of the layouts.
    """
    layouts = layouts or (Layout("same"),) * len(stored)
    operands = [
        KernelOperand(each, layout, is_updated(kernel, name) and name in kernel.outputs)
        for name, each, layout in zip(kernel.arrays, stored, layouts, strict=True)
    ]
    by_name = dict(zip(kernel.arrays, stored, strict=True))
    return _Update(kernel, types, operands, [by_name[name] for name in kernel.outputs]).program()


def update_source(kernel: Kernel) -> str:
    """Return the WGSL of an optimizer's update of float32 memory, for reading.

    The comments beside the scalars are the formulas that the host evaluates for each step. A device
    generates its own text at the optimizer's first step there.

    kernel: the update.

    >>> from rumus.gpu import update_source
    >>> from rumus.tensor import Expr, Kernel
    >>> p, g, lr = Expr.array("p"), Expr.array("g"), Expr.scalar("lr")
    >>> print(update_source(Kernel("descent", {"p": p - lr * g})).partition("let s0")[2])
     = bitcast<f32>(control[k.at + 0u]); // lr
        let t0 = vec4<f32>(s0) * in_g_value;
        let t1 = in_p_value - t0;
        let result0 = t1;
        if (control[0] != 0u) {
            in_p[i] = result0;
        }
    }
    <BLANKLINE>
    """
    stored = stored_types(has_half=True)[float32]
    types = kernel.types((float32,) * len(kernel.arrays))
    return update_program(kernel, types, [stored] * len(kernel.arrays)).source


def epilogue_function(kernel: Kernel) -> tuple[str, tuple[str, ...]]:
    """Return a kernel over float32 as a WGSL function of four elements, and its members of `k`.

    `finished` takes one vector per array, and returns a struct of the outputs r0, r1 ...

    >>> x, r = Expr.array("x"), Expr.array("r")
    >>> text, members = epilogue_function(Kernel("add", {"x": x * Expr.scalar("s") + r}))
    >>> print(text.strip(), members)
    struct Finished {
        r0: vec4<f32>,
    }
    <BLANKLINE>
    fn finished(in_x_value: vec4<f32>, in_r_value: vec4<f32>) -> Finished {
        let t0 = in_x_value * vec4<f32>(k.s0);
        let t1 = t0 + in_r_value;
        return Finished(t1);
    } ('s0: f32, // s',)
    """
    stored = stored_types(has_half=True)[float32]
    types = kernel.types((float32,) * len(kernel.arrays))
    operands = [KernelOperand(stored, Layout("same"), is_written=False)] * len(kernel.arrays)
    return _Function(kernel, types, operands, [stored] * len(kernel.outputs)).text_and_members()


class _Printer:
    """Builds the text from top to bottom."""

    operations: ClassVar[Mapping[str, str]] = OPERATIONS

    def __init__(
        self,
        kernel: Kernel,
        types: Types,
        inputs: Sequence[KernelOperand],
        outputs: Sequence[Stored],
    ) -> None:
        self.kernel, self.types = kernel, types
        self.inputs = dict(zip(kernel.arrays, inputs, strict=True))
        self.outputs = dict(zip(kernel.outputs, outputs, strict=True))
        self.compute: Kind = "f" if types.compute.kind == "f" else "i"
        self.members = ["n: u32", "tail: u32"]
        self.scalars = "II"
        self.globals: list[str] = []
        self.functions: list[str] = []
        self.lines: list[str] = []
        self.access = ""
        self.text: dict[Expr, str] = {}

    def program(self) -> Program:
        for name, operand in self.inputs.items():
            self._declare_input(name, operand)
        for name, stored in self.outputs.items():
            if not is_updated(self.kernel, name):
                self._bind(_output(name), stored, 4, True)
        self._declare_uniforms()
        self._compute()
        self._store()
        return Program(self.kernel.name, self._source(), self.access, self.scalars)

    def _compute(self) -> None:
        for number, node in enumerate(self.kernel.nodes):
            self.lines.append(f"let t{number} = {self._node(node)};")
            self.text[node] = f"t{number}"

    def _declare_uniforms(self) -> None:
        for number, uniform in enumerate(self.kernel.uniforms):
            self.members.append(f"s{number}: {VALUE[self.compute]}, // {formula(uniform)}")
            self.scalars += self.compute
            self.text[uniform] = f"vec4<{VALUE[self.compute]}>(k.s{number})"

    def _bind(self, name: str, stored: Stored, width: int, is_written: bool) -> None:
        mode = "read_write" if is_written else "read"
        number = len(self.access)
        element = vector(stored.wgsl, width)
        self.globals.append(
            f"@group(0) @binding({number}) var<storage, {mode}> {name}: array<{element}>;"
        )
        self.access += "w" if is_written else "r"

    def _declare_input(self, name: str, operand: KernelOperand) -> None:
        """Bind an input, declare its numbers, and load its four elements."""
        place, walk = _input(name), operand.layout.walk
        width = 4 if walk in ("same", "row") else 1
        self._bind(place, operand.stored, width, operand.is_written)
        for parameter in operand.layout.parameters:
            self.members.append(f"{place}_{parameter}: u32")
            self.scalars += "I"
        if walk in _AT:
            at = _AT[walk].format(a=place)
            self.functions.append(f"fn {place}_at(i: u32) -> u32 {{\n    return {at};\n}}\n")
        loaded = _LOADS[walk].format(a=place, v=vector(operand.stored.wgsl, 4))
        self.lines.append(f"let {place}_value = {operand.stored.load(loaded, 4)};")

    def _kind(self, node: Expr) -> Kind:
        """The type of a node's text."""
        if node.operation == "array":
            return self.inputs[node.name].stored.kind
        is_truth = node in self.types.masks and not node.uniform  # uniforms are passed as numbers
        return "b" if is_truth else self.compute

    def _value(self, node: Expr, kind: Kind) -> str:
        """The text of a node's value as `kind`."""
        if node.operation == "constant":
            return converted(_constant(node.value, self.compute), self.compute, kind)
        text = f"{_input(node.name)}_value" if node.operation == "array" else self.text[node]
        return converted(text, self._kind(node), kind)

    def _node(self, node: Expr) -> str:
        """The text of one operation."""
        operation, result = node.operation, self._kind(node)
        if operation == "where":
            condition, *choices = node.operands
            operands = [self._value(condition, "b")] + [self._value(c, result) for c in choices]
            return OPERATIONS["where"].format(*operands)
        if operation not in COMPARISONS and result == "b":
            return TRUTHS[operation].format(*(self._value(o, "b") for o in node.operands))
        table = self.operations if self.compute == "f" else {**OPERATIONS, **INTEGERS}
        return table[operation].format(*(self._value(o, self.compute) for o in node.operands))

    def _store(self) -> None:
        """Write each output; of a partial last vector, only the elements that exist."""
        full, partial = [], []
        for number, (name, output) in enumerate(self.kernel.outputs.items()):
            stored = self.outputs[name]
            place = _input(name) if is_updated(self.kernel, name) else _output(name)
            value = stored.store(self._value(output, stored.kind), 4)
            self.lines.append(f"let result{number} = {value};")
            full.append(f"{place}[i] = result{number};")
            partial.append(f"{place}[i] = select({place}[i], result{number}, inside);")
        self.lines += [
            "if (k.tail == 0u || i + 1u < k.n) {",
            *(f"    {line}" for line in full),
            "} else {",
            "    let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(k.tail);",
            *(f"    {line}" for line in partial),
            "}",
        ]

    def _source(self) -> str:
        body = "\n".join(f"    {line}" for line in self.lines)
        half = "enable f16;\n" if any("f16" in line for line in self.globals) else ""
        functions = "\n".join([prelude(body), *self.functions])
        members = "\n".join(f"    {m}" if "," in m else f"    {m}," for m in self.members)
        return (
            f"// {self.kernel.name}\n{half}\nstruct Scalars {{\n{members}\n}}\n\n"
            f"var<immediate> k: Scalars;\n" + "\n".join(self.globals) + f"\n\n{functions}\n"
            f"@compute @workgroup_size({WORKGROUP})\n"
            "fn main(\n    @builtin(workgroup_id) group: vec3<u32>,\n"
            "    @builtin(num_workgroups) groups: vec3<u32>,\n"
            "    @builtin(local_invocation_index) local: u32,\n) {\n"
            f"    let i = (group.y * groups.x + group.x) * {WORKGROUP}u + local;\n"
            "    if (i >= k.n) {\n        return;\n    }\n"
            f"{body}\n}}\n"
        )


class _Update(_Printer):
    """An update that the device may refuse, with uniforms in device memory."""

    # State that has become subnormal counts as 0 (see docs/numbers.md).
    operations: ClassVar[Mapping[str, str]] = {**OPERATIONS, "sqrt": "sqrt({0})"}

    def _declare_uniforms(self) -> None:
        self.members[1] = "at: u32"
        number = len(self.access)
        self.globals.append(f"@group(0) @binding({number}) var<storage, read> control: array<u32>;")
        self.access += "r"
        for number, uniform in enumerate(self.kernel.uniforms):
            value = f"bitcast<f32>(control[k.at + {number}u])"
            self.lines.append(f"let s{number} = {value}; // {formula(uniform)}")
            self.text[uniform] = f"vec4<f32>(s{number})"

    def _store(self) -> None:
        results = []
        for number, (name, output) in enumerate(self.kernel.outputs.items()):
            stored = self.outputs[name]
            value = stored.store(self._value(output, stored.kind), 4)
            self.lines.append(f"let result{number} = {value};")
            results.append(f"    {_input(name)}[i] = result{number};")
        # Checked only here: an earlier branch would make every load wait for the flag.
        self.lines += ["if (control[0] != 0u) {", *results, "}"]


class _Function(_Printer):
    """A function of values that have been loaded already."""

    def text_and_members(self) -> tuple[str, tuple[str, ...]]:
        self.members = []
        self._declare_uniforms()
        self._compute()
        results = [self._value(output, "f") for output in self.kernel.outputs.values()]
        body = "".join(f"    {line}\n" for line in self.lines)
        members = "".join(f"    r{number}: vec4<f32>,\n" for number in range(len(results)))
        arguments = ", ".join(f"{_input(name)}_value: vec4<f32>" for name in self.kernel.arrays)
        text = (
            f"{prelude(body)}\nstruct Finished {{\n{members}}}\n\n"
            f"fn finished({arguments}) -> Finished {{\n{body}"
            f"    return Finished({', '.join(results)});\n}}\n"
        )
        return text, tuple(self.members)


def formula(uniform: Expr) -> str:
    """Return the formula that the host evaluates for a kernel's scalar, for people to read.

    >>> lr, t = Expr.scalar("lr"), Expr.scalar("t")
    >>> formula(lr / (1 - 0.9**t))
    'lr / (1 - 0.9 ** t)'
    """
    if uniform.height > 12:
        return "..."
    if uniform.operation in _SIGNS:
        sign, strength = _SIGNS[uniform.operation]
        left, right = uniform.operands
        first, second = formula(left), formula(right)
        if _SIGNS.get(left.operation, ("", 9))[1] < strength:
            first = f"({first})"
        if _SIGNS.get(right.operation, ("", 9))[1] <= strength:
            second = f"({second})"
        return f"{first} {sign} {second}"
    if uniform.operation == "constant":
        return f"{uniform.value:g}"
    return uniform.name or f"{uniform.operation}({', '.join(map(formula, uniform.operands))})"


def _input(name: str) -> str:
    """The WGSL name of an input; the prefix keeps it apart from everything else."""
    return f"in_{name}"


def _output(name: str) -> str:
    return f"out_{name}"


def _constant(value: float, kind: Kind) -> str:
    """The text of a number in each of four elements."""
    if kind == "i":
        whole = max(-(2**31), min(2**31 - 1, int(value)))
        return f"vec4<i32>({f'i32({whole})' if whole != -(2**31) else 'i32(-2147483647 - 1)'})"
    if math.isnan(value):
        return "of_bits(0x7fc00000u)"
    try:
        single: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if math.isinf(single):
        return f"of_bits({'0x7f800000u' if single > 0 else '0xff800000u'})"
    return f"vec4<f32>({single!r})"
