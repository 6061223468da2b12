"""Node inspection: what a layer answers about its inputs, outputs and the graph around it."""

from __future__ import annotations

import torch
from report import Chapter, Claim, Printed, alone

import fanin
from fanin import Input, Sequential
from fanin.layers import Dense


class Session:
    """Evaluates lines, keeps what an interactive Python would show, and says whether each was as expected."""

    def __init__(self, names: dict[str, object]):
        self.names = names
        self.lines: list[str] = []
        self.surprises: list[str] = []
        self.asked = 0

    def ask(self, line: str, expected: object) -> None:
        """Evaluate a line; `expected` is its value, or the class of the error that it must raise."""
        self.asked += 1
        try:
            value: object = eval(line, dict(self.names))
            shown, right = repr(value), value is expected or value == expected
        except Exception as error:
            shown = f"{type(error).__name__}: {error}"
            right = isinstance(expected, type) and isinstance(error, expected)
        self.lines += [f">>> {line}", *_wrapped(shown)]
        if not right:
            self.surprises.append(f"{line} gave {shown}")

    def claim(self, text: str) -> Claim:
        """That all answers since the last claim were as expected."""
        measured = "; ".join(self.surprises) or f"all {self.asked} are"
        claim = Claim(text, measured, not self.surprises)
        self.asked, self.surprises = 0, []
        return claim


def _wrapped(text: str, width: int = 84) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(f"    {word}")
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return lines


def run(quick: bool = False) -> Chapter:
    """Ask the layers of a Sequential, a layer with two calls, and layers with none."""
    fanin.config.clear_session()  # automatic names count from the first again
    model = Sequential()
    model.add(Dense(32, input_shape=(16,)))
    model.add(Dense(32))
    first, second = model.layers

    one, two = Input((16,)), Input((5, 16))
    shared = Dense(4, name="shared")
    shared(one), shared(two)

    eager = Dense(3, name="eager")
    eager(torch.ones(2, 16))
    new = Dense(3, name="new")

    session = Session({"model": model, "first": first, "second": second, "shared": shared, "eager": eager, "new": new})
    ask = session.ask
    ask("model.input_shape, model.output_shape", ((None, 16), (None, 32)))
    ask("first.output", model.layers[1].input)
    ask("second.input is first.output", True)
    ask("model.outputs", [second.output])
    ask("first.outbound_nodes == second.inbound_nodes", True)
    ask("second.output_mask is None", True)
    in_chain = session.claim("input, output, shapes and nodes of a Sequential's layers are right")

    ask("len(shared.inbound_nodes)", 2)
    ask("shared.get_input_shape_at(0), shared.get_output_shape_at(0)", ((None, 16), (None, 4)))
    ask("shared.get_input_shape_at(1), shared.get_output_shape_at(1)", ((None, 5, 16), (None, 5, 4)))
    ask("shared.output", AttributeError)
    several = session.claim("a layer called twice answers for each call, and says so when asked for the only one")

    ask("new.input", AttributeError)
    ask("eager.input", RuntimeError)
    ask("hasattr(eager, 'input')", False)
    without = session.claim("a layer without symbolic calls answers with the right errors")

    called = [node.target for node in second.graph.nodes if node.op == "call_module"]
    session.lines += [">>> print(second.graph)", *str(second.graph).strip().splitlines()]
    print("\n".join(session.lines))
    return Chapter(
        "Node inspection",
        [
            "A layer that is called on an `Input`, or that stands in a `Sequential` whose input shape is known, "
            "remembers each call as a node: where its input came from and what became of it. Below, `model` is a "
            "`Sequential` of two `Dense(32)` on 16 numbers; `shared` was called on two inputs, `eager` only on real "
            "numbers, and `new` not at all.",
        ],
        [Printed("\n".join(session.lines))],
        [
            in_chain,
            several,
            without,
            Claim(
                "`layer.graph` is a `torch.fx.Graph` of the calls that lead to the layer",
                " -> ".join(map(str, called)),
                isinstance(second.graph, torch.fx.Graph) and called == [first.name, second.name],
            ),
        ],
    )


if __name__ == "__main__":
    alone(run)
