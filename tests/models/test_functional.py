"""Models made of inputs and outputs."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin import Input, Model, Sequential
from fanin.layers import BatchNormalization, Concatenate, Dense, Dropout, Layer, TorchModule
from fanin.models import clone_model, model_from_json


def two_towers():
    one, two = Input((4,), name="one"), Input((3,), name="two")
    joined = Concatenate(name="joined")([Dense(5, activation="relu", name="left")(one), Dense(6, name="right")(two)])
    return Model([one, two], [Dense(2, name="price")(joined), Dense(1, name="sold")(joined)])


def rows(count=7):
    return [torch.randn(count, 4), torch.randn(count, 3)]


# --- what it computes ---------------------------------------------------------------------------------------


def test_it_computes_what_the_layers_do():
    model, x = two_towers(), rows()
    left, right = model.get_layer("left"), model.get_layer("right")
    joined = torch.cat([left(x[0]), right(x[1])], dim=-1)
    price, sold = model(x)
    assert torch.equal(price, model.get_layer("price")(joined))
    assert torch.equal(sold, model.get_layer("sold")(joined))


@settings(derandomize=True, deadline=None, phases=[Phase.generate], max_examples=40)
@given(st.data())
def test_random_graphs_compute_what_a_plain_loop_does(data):
    """Layers shared, values read several times, outputs in the middle: every read sees the right value."""
    source = Input((3,))
    pool = [Dense(3, activation="tanh") for _ in range(3)]
    symbols, plan = [source], []
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["layer", "add", "function", "pair"]))
        a, b = data.draw(st.integers(0, len(symbols) - 1)), data.draw(st.integers(0, len(symbols) - 1))
        layer = data.draw(st.integers(0, 2))
        plan.append((kind, a, b, layer))
        symbols.extend(_step(pool, symbols, plan[-1]))
    ends = data.draw(st.lists(st.integers(0, len(symbols) - 1), min_size=1, max_size=3))
    model = Model(source, [symbols[end] for end in ends])
    values = [torch.randn(4, 3)]
    for task in plan:
        values.extend(_step(pool, values, task))
    returned = model(values[0]) if len(ends) > 1 else [model(values[0])]
    for found, end in zip(returned, ends, strict=True):
        assert torch.equal(found, values[end])


def _step(pool, values, task):
    kind, a, b, layer = task
    if kind == "layer":
        return [pool[layer](values[a])]
    if kind == "add":
        return [values[a] + values[b]]
    if kind == "pair":
        low, high = torch.split(torch.cat([values[a], values[b]], dim=-1), 3, dim=-1)
        return [low, high]
    return [torch.maximum(values[a], values[b] * 0.5)]


def test_only_the_layers_it_needs_run():
    ran = []

    class Tell(Layer):
        def call(self, inputs):
            ran.append(self.name)
            return inputs

    x = Input((2,))
    a, b = Tell(name="a")(x), Tell(name="b")(x)
    Model(x, [a, b])
    only_a = Model(x, a)
    ran.clear()
    only_a(torch.ones(1, 2))
    assert ran == ["a"]


def test_the_code_is_straight_lines():
    model = two_towers()
    lines = [line.strip() for line in model._run.source.splitlines()]
    assert lines[0] == "def run(v0, v1):"
    assert [line.split(" = ")[1].split("(")[0] for line in lines[1:-1]] == ["left", "right", "joined", "price", "sold"]


def test_memory_is_freed_along_the_way():
    """A value that is not needed any more is gone while the rest runs, as in a plain loop."""
    alive = []

    class Watch(Layer):
        def call(self, inputs):
            alive.append(sum(reference() is not None for reference in made))
            out = inputs + 1
            made.append(weakref.ref(out))
            return out

    made = []
    x = h = Input((2,))
    for _ in range(6):
        h = Watch()(h)
    model = Model(x, h)
    made.clear(), alive.clear()
    model(torch.ones(1, 2))
    assert max(alive) <= 2


# --- inputs -------------------------------------------------------------------------------------------------


def test_lists_dicts_and_names():
    model, x = two_towers(), rows()
    wanted = model(x)
    for given_as in (tuple(x), {"one": x[0], "two": x[1]}, {"two": x[1], "one": x[0], "more": x[0]},
                     [part.numpy() for part in x]):  # fmt: skip
        for found, value in zip(model(given_as), wanted, strict=True):
            assert torch.equal(found, value)


def test_dicts_in_and_out():
    a, b = Input((2,), name="a"), Input((2,), name="b")
    model = Model({"first": a, "second": b}, {"sum": a + b, "inner": {"difference": a - b}})
    out = model({"second": torch.ones(3, 2), "first": torch.full((3, 2), 5.0)})
    assert torch.equal(out["sum"], torch.full((3, 2), 6.0))
    assert torch.equal(out["inner"]["difference"], torch.full((3, 2), 4.0))
    assert model.output_shape == {"sum": (None, 2), "inner": {"difference": (None, 2)}}
    assert model.compute_output_shape({"first": (8, 2), "second": (8, 2)})["sum"] == (8, 2)
    with pytest.raises(ValueError, match=r"takes {'first': 'a' \(None, 2\)"):
        model({"first": torch.ones(3, 2)})


def test_a_column_may_lack_its_last_axis():
    age = Input((1,), name="age")
    model = Model({"age": age}, Dense(2)(age))
    x = torch.randn(5)
    assert torch.equal(model({"age": x}), model({"age": x.unsqueeze(-1)}))
    assert model.predict({"age": x.numpy()}, verbose=0).shape == (5, 2)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(7, 4), r"takes \['one' \(None, 4\), 'two' \(None, 3\)\], found \(7, 4\)\."),
        ([torch.ones(7, 4)], "takes"),
        ([torch.ones(7, 4)] * 3, "takes"),
        ([torch.ones(7, 4), torch.ones(7, 4)], r"input 'two' takes shape \(None, 3\), found \(7, 4\)"),
        ([torch.ones(7, 4), torch.ones(7, 2, 3)], r"input 'two' takes shape \(None, 3\), found \(7, 2, 3\)"),
        ({"one": torch.ones(7, 4)}, "takes"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        two_towers()(x)


def test_floats_become_the_integers_that_an_input_asks_for():
    ids = Input((3,), dtype="int32")
    seen = []

    class Tell(Layer):
        def call(self, inputs):
            seen.append(inputs.dtype)
            return inputs.float()

    model = Model(ids, Tell()(ids))
    seen.clear()
    model(torch.tensor([[1.0, 2.0, 3.0]]))
    assert seen == [torch.int32]


def test_a_list_of_one_output_is_the_output():
    x = Input((3,))
    model = Model([x], [Dense(2)(x)])
    assert model(torch.ones(4, 3)).shape == (4, 2)
    assert model.predict(np.ones((4, 3)), verbose=0).shape == (4, 2)
    assert model.output_shape == model.compute_output_shape((None, 3)) == (None, 2)
    assert Model.from_config(model.get_config()).to_json() == model.to_json()
    assert model.get_config()["output_layers"] == [["dense", 0, 0]]


# --- what is refused ----------------------------------------------------------------------------------------


def test_ends_that_make_no_graph_are_refused():
    x, other = Input((4,), name="x"), Input((4,), name="other")
    h = Dense(4, name="h")(x)
    y = Dense(2)(h)
    with pytest.raises(ValueError, match="found the output of 'h'"):
        Model(h, y)
    with pytest.raises(
        ValueError, match=r"disconnected.*'x' \(read by 'h'\), which is not among the inputs \['other'\]"
    ):
        Model(other, y)
    with pytest.raises(ValueError, match="comes twice"):
        Model([x, x], y)
    for wrong in (3.0, torch.ones(2), [y, None], np.ones(3)):
        with pytest.raises(ValueError, match="symbolic"):
            Model(x, wrong)
    with pytest.raises(ValueError, match="inputs must be symbolic"):
        Model([x, 5], y)
    with pytest.raises(TypeError, match="inputs and outputs"):
        Model(x)
    with pytest.raises(ValueError, match="at least one"):
        Model([], y)
    assert Model(x, [y, y])(torch.ones(1, 4))[0].shape == (1, 2)  # a repeated output is fine


def test_two_layers_of_one_name_are_refused():
    x = Input((4,))
    with pytest.raises(ValueError, match="two layers are named 'same'"):
        Model(x, Dense(2, name="same")(Dense(3, name="same")(x)))


def test_an_input_that_nobody_reads_is_fine():
    x, unused = Input((4,)), Input((2,))
    model = Model([x, unused], Dense(3)(x))
    assert model([torch.ones(1, 4), torch.ones(1, 2)]).shape == (1, 3)
    assert len(model.layers) == 3


# --- what it knows of itself --------------------------------------------------------------------------------


def test_layers_names_and_shapes():
    model = two_towers()
    assert type(model).__name__ == "Functional"
    assert isinstance(model, Model)
    assert model.name == "functional"
    assert [layer.name for layer in model.layers] == ["one", "two", "left", "right", "joined", "price", "sold"]
    assert model.input_names == ["one", "two"]
    assert model.output_names == ["price", "sold"]
    assert model.input_shape == [(None, 4), (None, 3)]
    assert model.output_shape == [(None, 2), (None, 1)]
    assert model.compute_output_shape([(9, 4), (9, 3)]) == [(9, 2), (9, 1)]
    assert model.get_layer("left") is model.get_layer(index=2)
    assert [symbol.shape for symbol in model.inputs] == [(None, 4), (None, 3)]
    assert model.built
    assert not model.training


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"name": "middle"}, "no layer named 'middle'"), ({"index": 9}, "index=9"), ({}, "name or an index"),
     ({"name": "left", "index": 1}, "name or an index")],
)  # fmt: skip
def test_get_layer_of_what_is_not_there(arguments, words):
    with pytest.raises(ValueError, match=words):
        two_towers().get_layer(**arguments)


def test_keys_of_state_dict_are_positions_without_input_layers():
    keys = list(two_towers().state_dict())
    assert keys == ["0.kernel", "0.bias", "1.kernel", "1.bias", "3.kernel", "3.bias", "4.kernel", "4.bias"]


def test_the_summary_shows_what_is_connected():
    printed = []
    two_towers().summary(line_length=90, print_fn=printed.append)
    row = next(line for line in printed[0].splitlines() if "joined" in line)
    assert "(None, 11)" in row
    assert "left, right" in row
    x = Input((3,))
    chain = []
    Model(x, Dense(2)(Dense(3)(x))).summary(print_fn=chain.append)
    assert "Connected" not in chain[0]


# --- models within models -----------------------------------------------------------------------------------


def test_a_model_is_a_layer():
    inner = two_towers()
    a, b = Input((4,)), Input((3,))
    outer = Model([a, b], Dense(2)(inner([a, b])[0]))
    x = rows()
    assert torch.equal(outer(x), outer.layers[-1](inner(x)[0]))
    assert outer.get_layer("functional") is inner
    inside = Sequential([Input((4,)), Dense(3)])
    assert Model(a, inside(a))(x[0]).shape == (7, 3)
    assert Sequential([Model(a, Dense(5)(a)), Dense(2)])(x[0]).shape == (7, 2)


def test_a_model_called_twice_shares_its_weights():
    source = Input((4,))
    inner = Model(source, Dense(4)(source))
    a, b = Input((4,)), Input((4,))
    outer = Model([a, b], inner(a) - inner(b))
    assert len(outer.weights) == 2
    x = torch.randn(3, 4)
    assert torch.equal(outer([x, x]), torch.zeros(3, 4))


def test_a_nest_of_20_and_shapes_that_differ():
    source = Input((4,))
    model = Model(source, Dense(4)(source))
    for _ in range(20):
        source = Input((4,))
        model = Model(source, Dense(4)(model(source)))
    x = torch.randn(2, 4)
    assert model(x).shape == (2, 4)
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    wide = Input((None, 4))
    inner_source = Input((None, 4))
    inner = Model(inner_source, Dense(3)(inner_source))
    assert Model(wide, inner(wide)).output_shape == (None, None, 3)
    assert inner(Input((5, 4))).shape == (None, 5, 3)
    assert inner(Input((5, 4), batch_size=2)).shape == (2, 5, 3)


def test_training_goes_to_the_layers_inside():
    source = Input((4,))
    inner = Model(source, Dropout(0.9)(source))
    x = torch.ones(64, 4)
    outer_source = Input((4,))
    assert torch.equal(inner(x), x)
    assert not torch.equal(inner(x, training=True), x)
    always = Model(outer_source, inner(outer_source, training=True))
    assert not torch.equal(always(x), x)
    assert not np.array_equal(always.predict(x, verbose=0), x.numpy())


# --- copies, config, JSON -----------------------------------------------------------------------------------


def shared_and_nested():
    """a(b(a(b(x)))), a shared model, a function, training=True at a call."""
    x = Input((4,), name="x")
    a, b = Dense(4, activation="tanh", name="a"), Dense(4, name="b")
    deep = a(b(a(b(x))))
    source = Input((4,))
    inner = Model(source, [Dense(3, name="i1")(source), source], name="inner")
    low, same = inner(deep)
    again, _ = inner(same)
    dropped = Dropout(0.0, name="drop")(low, training=True)
    return Model(x, {"out": Dense(2, name="out")(Concatenate()([dropped, again]))}, name="whole")


@pytest.mark.parametrize("make", [two_towers, shared_and_nested])
def test_copies_compute_the_same_and_share_nothing(make):
    model = make()
    x = rows() if make is two_towers else torch.randn(7, 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.name == model.name
        assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
        assert not {id(w) for w in twin.weights} & {id(w) for w in model.weights}
        for found, wanted in zip(_flat(twin(x)), _flat(model(x)), strict=True):
            assert torch.equal(found, wanted)
        assert twin.to_json() == model.to_json()


@pytest.mark.parametrize("make", [two_towers, shared_and_nested])
def test_config_and_json_keep_names_order_and_weights(make):
    model = make()
    config = model.get_config()
    before = json.dumps(config)
    twin = Model.from_config(config)
    assert json.dumps(config) == before
    for again in (twin, model_from_json(model.to_json()), clone_model(model)):
        assert type(again) is type(model)
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
        assert again.to_json() == model.to_json()
        assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
        again.set_weights(model.get_weights())
        x = rows() if make is two_towers else torch.randn(7, 4)
        for found, wanted in zip(_flat(again(x)), _flat(model(x)), strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("make", [two_towers, lambda: Sequential([Input((4,)), Dense(2)])])
def test_the_dtype_of_a_model_is_kept(make):
    model = make().double()
    config = model.get_config()
    for again in (type(model).from_config(config), model_from_json(model.to_json()), clone_model(model)):
        assert again.dtype_policy == model.dtype_policy
        assert {weight.dtype for weight in again.weights} == {torch.float64}
    begun = clone_model(model, input_tensors=model.inputs)
    assert begun.dtype_policy == model.dtype_policy
    x = Input((4,))
    assert "dtype" not in Model(x, Dense(2)(x)).get_config()


def _flat(value):
    return list(fanin.graph.tree.leaves(value))


def test_sharing_across_ranks_survives():
    layer = Dense(3, name="shared")
    flat, deep = Input((4,)), Input((5, 4))
    model = Model([flat, deep], [layer(flat), layer(deep)])
    twin = Model.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    x = [torch.randn(2, 4), torch.randn(2, 5, 4)]
    assert len(twin.weights) == 2
    for found, wanted in zip(twin(x), model(x), strict=True):
        assert torch.equal(found, wanted)


def test_a_clone_can_be_changed_and_begin_elsewhere():
    model = two_towers()
    wider = clone_model(model, clone_function=lambda layer: Dense(9, name="left") if layer.name == "left"
                        else type(layer).from_config(layer.get_config()))  # fmt: skip
    assert wider.get_layer("left").units == 9
    ends = [Input((4,), name="here"), Input((3,), name="there")]
    assert clone_model(model, input_tensors=ends).input_names == ["here", "there"]
    with pytest.raises(ValueError, match="has 2 inputs, found 1"):
        clone_model(model, input_tensors=[ends[0]])
    chain = Sequential([Input((4,)), Dense(3), Dropout(0.5)], name="chain")
    twin = clone_model(chain)
    assert twin.to_json() == chain.to_json()
    assert twin.weights[0] is not chain.weights[0]
    with pytest.raises(ValueError, match="torch module"):
        clone_model(Sequential([Input((4,)), torch.nn.Linear(4, 2)]))


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "expected JSON"), ("[]", "is no model"), ('{"class_name": "Nope", "config": {}}', "Nope"),
     ('{"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}', "is no model")],
)  # fmt: skip
def test_json_that_is_no_model(text, words):
    with pytest.raises(ValueError, match=words):
        model_from_json(text)


def _broken(change):
    config = two_towers().get_config()
    change(config)
    return config


def _history(config, layer):
    found = next(item for item in config["layers"] if item["name"] == layer)
    return found["inbound_nodes"][0]["args"][0]["config"]["keras_history"]


@pytest.mark.parametrize(
    "change",
    [
        lambda config: _history(config, "left").__setitem__(0, "nobody"),
        lambda config: _history(config, "left").__setitem__(1, 5),
        lambda config: _history(config, "left").__setitem__(0, "left"),  # a loop
        lambda config: config["output_layers"][0].__setitem__(0, "nobody"),
        lambda config: config["output_layers"][0].__setitem__(2, 7),
    ],
)
def test_a_config_whose_calls_do_not_fit_is_refused(change):
    with pytest.raises(ValueError, match=r"loops|not made|does not have"):
        Model.from_config(_broken(change))


def test_a_chain_of_2000_layers_is_built_called_copied_and_described():
    x = h = Input((4,))
    for _ in range(2000):
        h = Dense(4)(h)
    model = Model(x, h)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(torch.ones(1, 4)), model(torch.ones(1, 4)))
    again = Model.from_config(model.get_config())
    assert len(again.layers) == 2001


def test_a_graph_of_200_layers_that_see_all_earlier_ones():
    x = Input((2,))
    seen = [x]
    for _ in range(200):
        seen.append(Dense(2)(Concatenate()(seen) if len(seen) > 1 else x))
    model = Model(x, seen[-1])
    assert len(model.layers) == 1 + 200 + 199
    assert model(torch.ones(1, 2)).shape == (1, 2)


def test_a_dropped_model_is_freed_at_once():
    gc.disable()
    try:
        model = two_towers()
        model(rows())
        watched = [weakref.ref(model), *(weakref.ref(layer) for layer in model.layers)]
        del model
        assert [reference() for reference in watched] == [None] * len(watched)
    finally:
        gc.enable()


# --- trainability -------------------------------------------------------------------------------------------


def test_trainability_toggles_as_a_whole_and_in_part():
    model = two_towers()
    assert len(model.trainable_weights) == 8
    model.get_layer("left").trainable = False
    assert len(model.trainable_weights) == 6
    assert len(model.non_trainable_weights) == 2
    model.trainable = False
    assert model.trainable_weights == []
    model.trainable = True
    assert len(model.trainable_weights) == 8
    source = Input((4,))
    outer = Model(source, Sequential([Dense(3), Dense(2)])(Dense(4)(source)))
    outer.layers[-1].trainable = False
    assert len(outer.trainable_weights) == 2
    assert len(Model(source, outer(source), trainable=False).trainable_weights) == 0
    frozen = Model.from_config(outer.get_config())
    assert len(frozen.trainable_weights) == 0


# --- torch --------------------------------------------------------------------------------------------------


def test_a_torch_module_in_a_graph():
    x = Input((4,))
    model = Model(x, TorchModule(torch.nn.Linear(4, 3))(x))
    assert model(torch.ones(2, 4)).shape == (2, 3)
    assert list(model.state_dict()) == ["0.module.weight", "0.module.bias"]


@pytest.mark.parametrize("make", [two_towers, shared_and_nested])
def test_compile_export_and_per_sample_gradients(make):
    model = make()
    x = rows() if make is two_towers else torch.randn(7, 4)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        for found, wanted in zip(_flat(compiled(x)), _flat(model(x)), strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)
        exported = torch.export.export(model, (x,)).module()
        for found, wanted in zip(_flat(exported(x)), _flat(model(x)), strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return sum(out.sum() for out in _flat(torch.func.functional_call(model, parameters, (x,))))

    dims = ([0, 0],) if isinstance(x, list) else (0,)
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, *dims))(parameters, x)
    whole = torch.func.grad(loss)(parameters, x)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient.sum(0), whole[name], atol=1e-4)


def test_an_argument_that_comes_twice_is_refused():
    with pytest.raises(TypeError, match="got inputs twice"):
        Model(Input((2,)), Input((2,)), inputs=3)


def test_moving_to_another_dtype():
    model = two_towers().double()
    x = [part.double() for part in rows()]
    assert all(out.dtype == torch.float64 for out in model(x))


@pytest.mark.filterwarnings("ignore:.* has no weights that train")
def test_batch_normalization_in_a_graph_trains_and_freezes():
    x = Input((3,))
    model = Model(x, Dense(1)(BatchNormalization()(x)))
    model.compile("sgd", "mse")
    data, target = np.random.randn(64, 3).astype("float32") * 3 + 1, np.zeros((64, 1), "float32")
    moving = model.layers[1].moving_mean.clone()
    model.fit(data, target, verbose=0)
    assert not torch.equal(model.layers[1].moving_mean, moving)
    model.trainable = False
    before = model.predict(data, verbose=0)
    model.fit(data, target, verbose=0)
    assert np.array_equal(model.predict(data, verbose=0), before)


def test_a_metric_that_two_outputs_share_shows_each():
    inputs = fanin.Input((3,))
    outputs = [fanin.layers.Dense(1, name="a")(inputs), fanin.layers.Dense(1, name="b")(inputs)]
    model, shared = fanin.Model(inputs, outputs), fanin.metrics.MeanAbsoluteError(name="mae")
    x = torch.randn(6, 3)
    model.compile("sgd", "mse", metrics=[[shared], [shared]])
    found = model.evaluate(x, [x[:, :1], x[:, 1:2]], batch_size=4, verbose=0, return_dict=True)
    one, two = model.predict(x, verbose=0)
    expected = {"a_mae": abs(one - x[:, :1].numpy()).mean(), "b_mae": abs(two - x[:, 1:2].numpy()).mean()}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_graph_with_a_call_of_its_own_runs_that_call_every_time():
    class Doubled(Model):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training)

    inputs, x = Input((4,)), torch.randn(3, 4)
    layer = Dense(2)
    model = Doubled(inputs, layer(inputs))
    for _ in range(3):
        assert torch.allclose(model(x), 2 * layer(x))
    assert np.allclose(model.predict(x, verbose=0), 2 * layer(x).detach().numpy(), atol=1e-6)


def test_a_model_with_forward_instead_of_call_trains():
    class Plain(Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.drop, self.last = Dense(16, kernel_regularizer="l2"), torch.nn.Dropout(0.1), Dense(3)

        def forward(self, inputs):
            return self.last(self.drop(torch.relu(self.hidden(inputs))))

    model = Plain()
    model.compile("adam", "mse", metrics=["mae"])
    x = np.random.randn(64, 8).astype("float32")
    losses = model.fit(x, x[:, :3], epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    found = model.predict(x, verbose=0)
    assert np.allclose(found, model(torch.tensor(x)).detach().numpy(), atol=1e-6)
    expected = ((found - x[:, :3]) ** 2).mean() + 0.01 * (model.hidden.kernel**2).sum().item()
    assert model.evaluate(x, x[:, :3], verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(NotImplementedError, match="no `call` method"):
        Model()(x)
