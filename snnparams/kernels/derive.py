r"""The backward pass of any neuron, derived from its `step`.

A step is plain arithmetic, which `snnparams.neurons.step` has as a `Program`: a list of statements
`name = operation(*operands)`, each one operation on numbers. `backward` writes another such list: the forward
statements, and then the chain rule through each of them, the last one first. With :math:`\lambda` the derivative of the
loss, it takes :math:`\lambda` by what the step returns and gives :math:`\lambda` by all that it takes: variables of the
state, input current, constants and parameters. So it is the vector-Jacobian product of the step.

================================ ===========================================================================
`+ - * /`, `neg`                 the rules of calculus, in the order in which PyTorch's autograd adds terms
`spike(v, v_th)`                 `surrogate(g, v, v_th)`: g times the derivative of the spike function
`reset(z)`                       g, or nothing with `detach_reset`
`where(z, a, b)`                 g by the one that is chosen; nothing passes by z
================================ ===========================================================================

From both lists `snnparams.kernels.elementwise` writes machine code. `text` prints a list as a Python function, in which
a value that is used once stands where it is used. Of the neurons of this package those functions lie in
`snnparams/kernels/derived`, written by `make derive`, to be read, and compared by the tests with autograd and SymPy.
"""

from __future__ import annotations

import importlib
import pkgutil
import textwrap
from pathlib import Path

from snnparams import neurons
from snnparams.neurons.neuron import Neuron
from snnparams.neurons.step import PROGRAMS, Program, Statement, another_name

DERIVED = Path(__file__).parent / "derived"
WIDTH = 100  # columns of printed code; a value that does not fit gets a line and a name
LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3}  # what binds more tightly is higher


class _ChainRule:
    """Writes the statements of a backward pass behind those of a step."""

    def __init__(self, program: Program) -> None:
        self.statements = list(program.statements)
        self.taken = {*program.arguments, *(statement.name for statement in self.statements)}
        self.gradients: dict[str | float, str] = {}  # by the value by which they are

    def name(self, prefix: str) -> str:
        """Return a name that nothing else has."""
        name = prefix if prefix not in self.taken else another_name(f"{prefix}_", self.taken)
        self.taken.add(name)
        return name

    def value(self, operation: str, *operands: str | float) -> str:
        """Return the name of the result of one more operation."""
        name = another_name("g", self.taken)
        self.taken.add(name)
        self.statements.append(Statement(name, operation, operands))
        return name

    def add(self, value: str | float, gradient: str) -> None:
        """Add to the gradient by a value; numbers have none."""
        if isinstance(value, str):
            before = self.gradients.get(value)
            self.gradients[value] = gradient if before is None else self.value("+", before, gradient)

    def subtract(self, value: str | float, gradient: str) -> None:
        """Subtract from the gradient by a value."""
        if isinstance(value, str):
            before = self.gradients.get(value)
            self.gradients[value] = self.value(*(("neg",) if before is None else ("-", before)), gradient)

    def through(self, statement: Statement, g: str, detach_reset: bool, hard: bool) -> None:
        """Add what comes through one statement, whose result has gradient g, to the gradients by its operands."""
        name, operation, (a, *others) = statement
        if operation == "neg":
            self.subtract(a, g)
        elif operation == "reset":
            if not detach_reset:
                self.add(a, g)
        elif operation == "where":
            chosen, other = others
            if isinstance(chosen, str):
                self.add(chosen, self.value("where", a, g, 0.0))
            if isinstance(other, str):
                self.add(other, self.value("where", a, 0.0, g))
        elif operation == "spike":
            if not hard:
                passed = self.value("surrogate", g, a, *others)
                self.add(a, passed)
                self.subtract(others[0], passed)
        else:
            self._through_arithmetic(name, operation, a, others[0], g)

    def _through_arithmetic(self, name: str, operation: str, a: str | float, b: str | float, g: str) -> None:
        if operation in "+-":
            self.add(a, g)
            (self.add if operation == "+" else self.subtract)(b, g)
        elif operation == "*":
            if isinstance(a, str):
                self.add(a, self.value("*", g, b))
            if isinstance(b, str):
                self.add(b, self.value("*", g, a))
        else:  # name = a / b
            share = self.value("/", g, b)
            self.add(a, share)
            if isinstance(b, str):
                self.subtract(b, self.value("*", share, name))


def backward(program: Program, detach_reset: bool = False, hard: bool = False) -> Program:
    """Return the vector-Jacobian product of a step.

    Args:
        program: the step.
        detach_reset: whether no gradient passes the spike in the reset.
        hard: whether none passes any spike: that of "heaviside".

    Returns:
        A program that takes, besides what the step does, the gradients by the output and by the new state, which are
        its last arguments. It returns those by `program.kept` and then by `program.parameters`; 0 for one that
        nothing reaches.
    """
    chain = _ChainRule(program)
    given = [chain.name(f"g_{name}") for name in ("output", *program.state)]
    for value, gradient in zip(program.returned, given, strict=True):
        chain.add(value, gradient)
    for statement in reversed(program.statements):
        if (gradient := chain.gradients.get(statement.name)) is not None:  # type: ignore[assignment]
            chain.through(statement, gradient, detach_reset, hard)
    returned = tuple(chain.gradients.get(name, 0.0) for name in (*program.kept, *program.parameters))
    statements = _needed(chain.statements, returned)
    return program._replace(arguments=(*program.arguments, *given), statements=statements, returned=returned)


def _needed(statements: list[Statement], returned) -> tuple[Statement, ...]:
    """Return those of the statements on which what is returned depends."""
    needed, used = [], set(returned)
    for statement in reversed(statements):
        if statement.name in used:
            used.update(statement.operands)
            needed.append(statement)
    return tuple(reversed(needed))


def without(program: Program, first: int) -> Program:
    """Return a program that does not return what it has from number `first` on."""
    returned = program.returned[:first]
    return program._replace(statements=_needed(list(program.statements), returned), returned=returned)


# ------------------------------------------------------------------------------------------------------- to be read


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else repr(value)


def _in_lines(head: str, items: list[str], tail: str) -> str:
    """Return items with commas between them, in several lines if one is too long."""
    joined = ", ".join(items)
    if len(head + joined + tail) <= WIDTH:
        return head + joined + tail
    return f"{head}\n{textwrap.fill(joined, WIDTH, initial_indent='    ', subsequent_indent='    ')},\n{tail}"


def text(program: Program, name: str, docstring: str) -> str:
    """Return a program as a Python function; the functions that it calls are its last arguments."""
    operands = [operand for statement in program.statements for operand in statement.operands]
    written: dict[str | float, tuple[str, int]] = {}  # code of a value, and how tightly it binds

    def code(operand: str | float, level: int) -> str:
        plain = (operand, 9) if isinstance(operand, str) else (_number(operand), 9 if operand >= 0 else 1)
        found, binds = written.get(operand, plain)
        return found if binds >= level else f"({found})"

    lines = []
    for statement in program.statements:
        operation, level = statement.operation, LEVELS.get(statement.operation, 9)
        if operation == "neg":
            made = f"-{code(statement.operands[0], level)}"
        elif level < 9:
            a, b = statement.operands
            made = f"{code(a, level)} {operation} {code(b, level + 1)}"
        else:
            made = f"{operation}({', '.join(code(operand, 0) for operand in statement.operands)})"
        once = operands.count(statement.name) == 1 and statement.name not in program.returned
        if once and len(made) < WIDTH // 2:
            written[statement.name] = made, level
        else:
            lines.append(f"{statement.name} = {made}")
    called = {statement.operation for statement in program.statements} - {*LEVELS}
    head = _in_lines(f"def {name}(", [*program.arguments, *sorted(called)], "):")
    returned = [code(value, 0) for value in program.returned]
    short = f"return {', '.join(returned)}"
    lines.append(short if len(short) <= WIDTH else _in_lines("return (", returned, ")"))
    return textwrap.indent("\n".join([f'"""{docstring}"""', *lines]), "    ").join([head + "\n", "\n"])


def text_of(neuron: type[Neuron]) -> str:
    """Return one step of a neuron and its vector-Jacobian product as two Python functions, to be read or run."""
    program = PROGRAMS[neuron.program]
    names = ", ".join((*program.kept, *program.parameters))
    return "\n\n".join(
        (
            text(program, f"{neuron.__name__}_forward", f"Return the output and the new {', '.join(program.state)}."),
            text(backward(program), f"{neuron.__name__}_backward", f"Return the gradients by {names}."),
        )
    )


def files() -> dict[Path, str]:
    """Return what `make derive` writes: a file for each file of `snnparams/neurons` that has neurons."""
    found = {}
    for module in pkgutil.iter_modules(neurons.__path__):
        there = vars(importlib.import_module(f"{neurons.__name__}.{module.name}")).values()
        own = [kind for kind in there if isinstance(kind, type) and issubclass(kind, Neuron) and kind is not Neuron]
        texts = [text_of(kind) for kind in own if kind.__module__ == f"{neurons.__name__}.{module.name}"]
        if texts:
            docstring = f'"""Derived from `snnparams/neurons/{module.name}.py` by `make derive`, to be read."""'
            found[DERIVED / f"{module.name}.py"] = "\n\n".join((f"{docstring}\n\n# fmt: off", *texts))
    return found


if __name__ == "__main__":
    for path in DERIVED.glob("[a-z]*.py"):
        path.unlink()
    for path, content in files().items():
        path.write_text(content)
