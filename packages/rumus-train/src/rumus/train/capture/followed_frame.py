"""`FollowedFrame`: what each instruction of a running function reads, and of which object."""

from __future__ import annotations

import dis
import functools
import operator
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from string import Formatter
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from rumus.tensor import Generator, Tensor
from rumus.tensor.memory.uninterrupted import is_of_handler
from rumus.train.capture.outside import is_dynamic, is_named, is_of_rumus, is_plain

if TYPE_CHECKING:
    from rumus.train.capture.reads import Reads

_KEEPS_TOP: Final = frozenset(("EXTENDED_ARG", "NOP", "RESUME", "CACHE", "PRECALL"))
_ATTRIBUTES: Final = frozenset(("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"))
_CELLS: Final = frozenset(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"))
_GLOBALS: Final = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_SUBSCRIPTS: Final = frozenset(("BINARY_SUBSCR", "BINARY_SLICE"))
_FORMATTED: Final = frozenset(
    ("FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC", "CONVERT_VALUE")
)
_OPERATORS: Final = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod", "**": "pow",
    "@": "matmul", "<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne",
}  # fmt: skip
PLACES: Final = frozenset(("position", "place", "state"))  # of a generator, which moves
_FORMATS: Final = frozenset(("format", "format_map"))  # of texts: they read attributes themselves
_TEXTS: Final = _FORMATS | {"__repr__", "__str__", "__format__"}
# And so do these: `__get__` of a slot reads it.
_WHOLE: Final = frozenset(
    ("__reduce__", "__reduce_ex__", "__getstate__", "__getattribute__", "__get__")
)
# What compares or shows whatever it is given, and that of lists.
_OF_LISTS: Final = frozenset(("index", "count", "remove", "__contains__"))
WHOLLY: Final = _OF_LISTS | frozenset(
    ("eq", "ne", "lt", "le", "gt", "ge", "contains", "countOf", "indexOf", "mod", "print",
     "__eq__", "__ne__", "__repr__", "__str__")
)  # fmt: skip
TELLING: Final = frozenset(("getattr", "vars", "__getattribute__", "__get__"))  # what has a name
_ADDRESSES: Final = (id, hash, str, repr, ascii, format)  # some tell where a thing lies
BY_NAME: Final = (operator.attrgetter, operator.methodcaller)


class _Unknown:
    """What nobody knows the value of."""


class _Local(str):
    """The name of a local variable whose value was just read."""

    __slots__ = ()


_OTHER: Final = ("other", None)  # instructions that read nothing
UNKNOWN: Final = _Unknown()
ELEMENT: Final = _Unknown()  # of a container, by an index


class FollowedFrame:
    """One frame: what each of its instructions reads, and of what."""

    def __init__(self, reads: Reads, frame: FrameType) -> None:
        self._reads = reads
        self._steps = _steps(frame.f_code)
        self._top: Any = UNKNOWN  # what the instruction before left on the stack, if that is known
        self._asked: Any = None  # a function that reads what it is asked for, before its arguments
        self._asking: dict[int, Any] = {}  # such as `getattr`, by where its first argument is there
        module = frame.f_globals.get("__name__")
        self._is_own = is_of_rumus(module)
        self._is_pythons = str(module).partition(".")[0] in sys.stdlib_module_names

    def __call__(self, frame: FrameType, event: str, arg: object) -> FollowedFrame:
        """Look at the next instruction: Python calls this before it, as a trace function."""
        if event == "exception" and isinstance(arg, tuple) and issubclass(arg[0], RecursionError):
            self._reads.refuse("it comes to the limit of recursion, which is that of the program")
        if event == "opcode":
            step = self._steps.get(frame.f_lasti, _OTHER)
            try:
                if self._asking and frame.f_lasti in self._asking:
                    self._answer_named(frame, self._asking.pop(frame.f_lasti), *step)
                if self._asked is not None:
                    self._answer(frame, *step)
                self._top = self._after(frame, *step)
                if self._top is str and not self._is_own:
                    self._reads.show_names()
                if not self._is_own and is_named(self._top):
                    self._ask(frame, self._top)
                elif self._asked is None and not self._is_own and _asks(self._top):
                    self._asked = self._top
            except Exception as error:  # or the step would raise it
                if is_of_handler(error):
                    raise
                self._top, self._asked = UNKNOWN, None
                why = f"{type(error).__name__}: {error}"
                self._reads.refuse(f"{frame.f_code.co_name} cannot be followed ({why})")
        return self

    def _ask(self, frame: FrameType, asked: Any) -> None:
        """A function that reads attributes by their names is there: called at once, or kept."""
        first = _first_arguments(frame.f_code).get(frame.f_lasti)
        if first is not None:
            self._asking[first] = asked
        elif asked.__name__ in TELLING:
            self._reads.read_any()

    def _answer_named(self, frame: FrameType, asked: Any, operation: str, name: Any) -> None:
        """The first argument is there, and what comes next is the name, if any."""
        base, given = self._value(frame, self._top), None
        if operation in ("constant", "local") and frame.f_lasti in _arguments(frame.f_code):
            given = frame.f_locals.get(name) if operation == "local" else name
        if isinstance(given, str) and given != "__dict__":  # which has all of them
            base = UNKNOWN if base is ELEMENT else base
            self._reads.look_around(base, given)
            self._reads.read_attribute(base, given)
            return
        if base is not UNKNOWN and base is not ELEMENT:
            self._reads.read_namespace(base)
        elif asked.__name__ in TELLING:
            self._reads.read_any()
        self._reads.ask_for_any()

    def _answer(self, frame: FrameType, operation: str, name: Any) -> None:
        """What `getattr`, `vars` and their like are asked for, if it is a class or a module."""
        base, asked = self._value(frame, self._top), self._asked
        if operation in ("keep", "attribute") or base is None:
            return
        if any(asked is each for each in _ADDRESSES):
            is_answered = base is not asked
            if is_answered and not self._is_pythons and (asked is id or operation == "called"):
                is_given = operation == "called" and name == 1  # and not to another call
                self._reads.ask_address(asked, base, is_given=is_given)
            if not is_dynamic(asked):
                if is_answered or self._is_pythons:
                    self._asked = None
                return
        given = None
        if operation in ("constant", "local") and frame.f_lasti in _arguments(frame.f_code):
            given = frame.f_locals.get(name) if operation == "local" else name
        if isinstance(asked, type):
            self._asked = None
            self._reads.read_by_name([given])
        elif base is not asked:
            self._asked = None
            if isinstance(given, str):
                self._reads.look_around(base, given)
                self._reads.read_attribute(base, given)
            else:
                self._reads.read_namespace(base)
                self._reads.ask_for_any()

    def _value(self, frame: FrameType, top: Any) -> Any:
        return frame.f_locals.get(str(top), UNKNOWN) if isinstance(top, _Local) else top

    def _after(self, frame: FrameType, operation: str, name: Any) -> Any:
        """What an instruction will leave on the top of the stack."""
        reads = self._reads
        if operation == "keep":
            return self._top
        if operation in ("other", "called"):
            return UNKNOWN
        if operation == "local":
            return _Local(name)
        if operation == "write global":
            reads.write_global(frame, name)
            return UNKNOWN
        if operation == "write cell":
            reads.write_cell(frame, name)
            return UNKNOWN
        if operation == "element":
            return ELEMENT
        if operation == "constant":
            return name
        if operation == "global":
            return self._checked(reads.read_global(frame, name))
        if operation == "cell":
            return self._checked(reads.read_cell(frame, name))
        if operation == "import":
            return reads.read_import(frame, *name)
        base = self._value(frame, self._top)
        if operation == "attribute of another":  # of a class above
            base = UNKNOWN
        if operation == "shown":
            reads.show(base)
            self._show_names(base)
            return UNKNOWN
        if operation in ("operator", "compared"):
            if name is not None and not self._is_own:
                reads.use_operator(name)
            if name == "mod":  # perhaps of a text
                reads.use_digits()
                self._show_names(base)
            if operation == "compared" or name == "mod":
                reads.compare(base)
            return UNKNOWN
        if operation == "contained":
            if not isinstance(base, (dict, set, frozenset)):  # their keys are hashed
                reads.compare(base)
            return UNKNOWN
        if operation == "matched as registered":
            reads.ask_registered("a pattern's class")
            return UNKNOWN
        if operation == "matched":
            if name:
                reads.read_all()  # the class says which attributes have positions
                reads.read_attribute(UNKNOWN, "__match_args__")
            reads.match(base)
            return UNKNOWN
        if operation == "write":
            reads.write_attribute(UNKNOWN if base is ELEMENT else base, name)
            return UNKNOWN
        if base is ELEMENT:
            base = UNKNOWN
        elif base is UNKNOWN and self._is_own:
            return UNKNOWN  # a result, or a part of one
        elif self._is_own and isinstance(base, Generator) and name in PLACES:
            return UNKNOWN  # put back after it was read, as by `checkpoint`
        is_format = name in _FORMATS and (base is UNKNOWN or isinstance(base, str))
        if name in _WHOLE or is_format:
            reads.read_all()
            reads.use_digits()
        if name in _TEXTS and not self._is_own:
            reads.show_names()
        if (is_format and _looks_up(base)) or (name in TELLING and not self._is_own):
            reads.read_any()
        if name in _OF_LISTS and (base is UNKNOWN or isinstance(base, (list, tuple, deque))):
            reads.read_namespaces()
        if not self._is_own:
            reads.look_around(base, name)
            reads.use_method(base, name)
        return self._checked(reads.read_attribute(base, name))

    def _show_names(self, shown: Any) -> None:
        if not self._is_own and not is_plain(shown) and not isinstance(shown, Tensor):
            self._reads.show_names()

    def _checked(self, value: Any) -> Any:
        if not self._is_own and is_dynamic(value):
            self._reads.read_all()
        return value


@functools.lru_cache(4096)
def _steps(code: CodeType) -> Mapping[int, tuple[str, Any]]:
    """The instructions of a function that read or keep something, by their offset."""
    found: dict[int, tuple[str, Any]] = {}
    instructions = list(dis.get_instructions(code))
    for number, one in enumerate(instructions):
        name, value = one.opname, one.argval
        if name in _KEEPS_TOP or (name == "COPY" and one.arg == 1):
            found[one.offset] = "keep", None
        elif name in _GLOBALS:
            found[one.offset] = "global", value
        elif name in _CELLS:
            found[one.offset] = "cell", value
        elif name in _ATTRIBUTES:
            is_wait = value == "acquire" and _is_called_for_nothing(instructions[number + 1 :])
            found[one.offset] = _OTHER if is_wait else ("attribute", value)
        elif name == "STORE_ATTR":
            found[one.offset] = "write", value
        elif name in _SUBSCRIPTS or (name == "BINARY_OP" and one.argrepr.startswith("[")):
            found[one.offset] = "element", None
        elif name in _FORMATTED:
            found[one.offset] = "shown", None
        elif name == "COMPARE_OP":
            found[one.offset] = "compared", _OPERATORS.get(one.argval)
        elif name == "CONTAINS_OP":
            found[one.offset] = "contained", None
        elif name == "BINARY_OP":
            found[one.offset] = "operator", _OPERATORS.get(one.argrepr.removesuffix("="))
        elif name == "CALL":
            found[one.offset] = "called", one.arg
        elif name == "MATCH_CLASS":
            found[one.offset] = "matched", one.arg
        elif name in ("MATCH_MAPPING", "MATCH_SEQUENCE"):
            found[one.offset] = "matched as registered", None
        elif name == "IMPORT_NAME":
            before = [i.argval for i in instructions[:number] if i.opname != "EXTENDED_ARG"]
            level, names = before[-2:]
            found[one.offset] = "import", (value, level, names)
        elif name == "LOAD_SUPER_ATTR":
            found[one.offset] = "attribute of another", value
        elif name == "STORE_GLOBAL":
            found[one.offset] = "write global", value
        elif name == "STORE_DEREF":
            found[one.offset] = "write cell", value
        elif name == "LOAD_CONST":
            found[one.offset] = "constant", value
        elif name == "LOAD_CLOSURE":
            found[one.offset] = "cell", value
        elif name.startswith("LOAD_FAST") or name == "STORE_FAST_LOAD_FAST":
            last = value[-1] if isinstance(value, tuple) else value
            # From Python 3.13 on it may also hand on a closed-over variable.
            found[one.offset] = "cell" if last in code.co_freevars else "local", last
    return found


def _is_called_for_nothing(after: Sequence[dis.Instruction]) -> bool:
    """Whether a method is called without arguments, and what it returns is dropped."""
    shown = [one for one in after[:4] if one.opname not in _KEEPS_TOP]
    return [(one.opname, one.arg) for one in shown[:2]] == [("CALL", 0), ("POP_TOP", None)]


@functools.lru_cache(4096)
def _first_arguments(code: CodeType) -> Mapping[int, int]:
    """Where a global function is called at once: the offset after its first argument, by its own.

    Not where the arguments are stars, or hold a condition.
    """
    found: dict[int, int] = {}
    instructions = list(dis.get_instructions(code))
    for number, one in enumerate(instructions):
        if one.opname == "LOAD_GLOBAL" and one.argrepr.find("NULL") >= 0:
            after, depth = None, 0
            for place, each in enumerate(instructions[number + 1 :], number + 1):
                is_jump = each.opcode in dis.hasjrel or each.opcode in dis.hasjabs
                depth += dis.stack_effect(each.opcode, each.arg, jump=False)
                if depth < 1 and after is not None:
                    if each.opname in ("PRECALL", "CALL"):
                        found[one.offset] = after
                    break
                if is_jump:
                    break
                if depth == 1 and each.opname not in ("EXTENDED_ARG", "CACHE"):
                    after = instructions[place + 1].offset
    return found


@functools.lru_cache(4096)
def _arguments(code: CodeType) -> frozenset[int]:
    """The offsets of constants and variables that are a whole argument, the last or the one before.

    Others begin an expression, such as `"".join(parts)`.
    """
    shown = [one for one in dis.get_instructions(code) if one.opname not in _KEEPS_TOP]
    found = set[int]()
    for number, one in enumerate(shown):
        after = shown[number + 1 : number + 3]
        names = [each.opname for each in after]
        is_last = names[1:] == ["CALL"] and dis.stack_effect(after[0].opcode, after[0].arg) == 1
        if names[:1] == ["CALL"] or (is_last and not names[0].startswith("COPY")):
            found.add(one.offset)
    return frozenset(found)


def _looks_up(text: Any) -> bool:
    """Whether a format reads attributes or elements of what it shows: "{0.rate}"."""
    if not isinstance(text, str):
        return True
    try:
        fields = [(name or "", spec or "") for _, name, spec, _ in Formatter().parse(text)]
    except ValueError:
        return True
    return any("." in name or "[" in name or "{" in spec for name, spec in fields)


def _asks(value: Any) -> bool:
    """Whether a function, with its arguments still to come, reads attributes by their names."""
    return any(value is kind for kind in (*BY_NAME, *_ADDRESSES)) or is_dynamic(value)
