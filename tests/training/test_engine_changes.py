"""Changes between compiled steps: whatever is assigned takes effect at the next one."""

import copy
import pickle

import pytest
import torch
from engine_cases import BATCH, Twins, close_to_nothing, programs, rows, same_bits, simple
from torch import nn

import fanin
from fanin import optimizers
from fanin.layers import Dense
from fanin.training import backoff


def halve(model):
    model.set_weights([w / 2 for w in model.get_weights()])


def assign(model):
    state = {name: value.detach().clone() / 2 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def double(model):
    model.double()


def freeze(model):
    model.get_layer("first").trainable = False


def forward_hook(model):
    model.get_layer("second").register_forward_hook(lambda layer, given, found: found * 0.5)


def pre_hook(model):
    model.get_layer("second").register_forward_pre_hook(lambda layer, given: (given[0] * 0.5,))


def shift(model):
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)


def new_data(model):
    for weight in model.parameters():
        weight.data = weight.data.clone() * 0.5


def use(model):
    model(torch.ones(2, 6), training=True).sum().backward()
    assert model.layers[0].kernel.grad is not None
    for weight in model.parameters():
        weight.grad = None


def attribute(path, value):
    def change(model):
        *owners, name = path.split(".")
        owner = model.optimizer if owners == ["optimizer"] else model.get_layer(owners[0])
        setattr(owner, name, value)

    return change


def add_layer(model):
    model.add(Dense(3, "softmax", kernel_initializer="identity"))


def pop_layer(model):
    layer = model.layers[-1]
    model.pop()
    model.add(layer)


def torch_dropout(model):
    for part in model.modules():
        if type(part) is nn.Dropout:
            part.p = 0.9


def regularize(model):
    fanin.regularize(model.get_layer("first"), {"kernel": "l2"})


def constrain(model):
    fanin.constrain(model.get_layer("first"), {"kernel": "unit_norm"})


def exclude(model):
    model.optimizer.exclude_from_weight_decay(list(model.get_layer("first").parameters()))


def recompile(model):
    model.compile(model.optimizer, "sparse_categorical_crossentropy", run_eagerly=model._compiled_with.run_eagerly)


def reset_count(model):
    model.optimizer.iterations = 0


def low_rank(model):
    model.get_layer("first").enable_lora(2, a_initializer="ones", b_initializer="ones")


def normed_weight(model):
    torch.nn.utils.parametrizations.weight_norm(model.get_layer("second"), "kernel")


def add_global_loss(model):
    model.add_loss(lambda: 0.1 * model.get_layer("first").kernel.pow(2).sum())


CHANGES = {
    "learning rate": attribute("optimizer.learning_rate", 0.5),
    "schedule": attribute("optimizer.learning_rate", optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)),
    "clipnorm": attribute("optimizer.clipnorm", 0.001),
    "weight decay": attribute("optimizer.weight_decay", 0.9),
    "momentum": attribute("optimizer.momentum", 0.1),
    "count of steps": reset_count,
    "frozen": freeze,
    "frozen normalization": lambda model: setattr(model.get_layer("normal"), "trainable", False),
    "frozen by torch": lambda model: model.get_layer("first").kernel.requires_grad_(False),
    "set_weights": halve,
    "assigned": assign,
    "double": double,
    "changed in place": shift,
    "new data": new_data,
    "used eagerly": use,
    "rate of dropout": attribute("thinned.rate", 0.9),
    "no dropout": attribute("thinned.rate", 0.0),
    "dropout of torch": torch_dropout,
    "activation": attribute("first.activation", torch.relu),
    "momentum of averages": attribute("normal.momentum", 0.1),
    "epsilon": attribute("normal.epsilon", 0.5),
    "another layer": add_layer,
    "popped and added": pop_layer,
    "hook": forward_hook,
    "hook before": pre_hook,
    "regularizer": regularize,
    "constraint": constrain,
    "added loss": add_global_loss,
    "compiled again": recompile,
    "low rank": low_rank,
    "parametrized": normed_weight,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_take_effect_at_the_next_step(name, exact):
    twins = Twins(lambda model: optimizers.SGD(0.1, momentum=0.5, weight_decay=0.01))
    twins.step()
    programs(twins.models[0])
    twins.change(CHANGES[name])
    twins.step(seed=2)
    twins.step(seed=4)
    programs(twins.models[0])


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Adam", "beta_1", 0.1),
        ("Adam", "beta_2", 0.5),
        ("Adam", "epsilon", 0.5),
        ("Adam", "amsgrad", False),
        ("SGD", "nesterov", True),
        ("RMSprop", "rho", 0.1),
        ("Lion", "beta_1", 0.1),
        ("Adam", "clipvalue", 0.001),
        ("Adam", "global_clipnorm", 0.001),
        ("Adam", "ema_momentum", 0.1),
        ("Adam", "ema_overwrite_frequency", 1),
    ],
)
def test_changed_options_of_an_optimizer_take_effect_at_the_next_step(kind, name, value, exact):
    more = {"amsgrad": True} if name == "amsgrad" else {"momentum": 0.9} if kind == "SGD" else {}
    more |= {"use_ema": True} if "ema" in name else {}
    twins = Twins(lambda model: getattr(optimizers, kind)(0.05, **more))
    twins.step()
    twins.change(attribute(f"optimizer.{name}", value))
    twins.step(seed=2)
    programs(twins.models[0])


def test_decay_that_is_excluded_takes_effect(exact):
    twins = Twins(lambda model: optimizers.AdamW(0.1, weight_decay=0.5))
    twins.change(exclude)
    twins.step()
    programs(twins.models[0])


def test_freezing_and_thawing_keeps_the_optimizers_state(exact):
    twins = Twins(lambda model: optimizers.Adam(0.05))
    for trainable in (True, False, True):
        twins.change(lambda model, t=trainable: setattr(model.get_layer("first"), "trainable", t))
        before = twins.models[0].get_layer("first").kernel.detach().clone()
        twins.step()
        assert torch.equal(before, twins.models[0].get_layer("first").kernel) is not trainable


def test_changes_by_callbacks_within_an_epoch(exact, monkeypatch):
    monkeypatch.setattr(backoff, "_LONGEST", 0)  # compile after every change

    class Change(fanin.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.1 / (epoch + 1)
            self.model.get_layer("thinned").rate = 0.1 * epoch
            self.model.get_layer("first").trainable = epoch != 1

        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.1 / (batch + 1)
            self.model.get_layer("thinned").rate = 0.2 * batch
            self.model.get_layer("second").trainable = batch != 1

    twins = Twins(lambda model: optimizers.SGD(0.1))
    histories = []
    for model in twins.models:
        fanin.utils.set_random_seed(5)
        histories.append(model.fit(*rows(), batch_size=BATCH, epochs=3, callbacks=[Change()], verbose=0).history)
    assert histories[0] == histories[1]
    same_bits(*twins.models)
    programs(twins.models[0])


def test_a_callback_that_changes_the_model_after_a_batch(exact):
    class Change(fanin.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            halve(self.model)
            self.model.get_layer("normal").trainable = batch == 0

    twins = Twins(lambda model: optimizers.SGD(0.1))
    for model in twins.models:
        fanin.utils.set_random_seed(5)
        model.fit(*rows(), batch_size=BATCH, callbacks=[Change()], verbose=0)
    same_bits(*twins.models)


def test_autocast_of_the_caller_counts(exact):
    twins = Twins(lambda model: optimizers.SGD(0.1))
    twins.step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        twins.step(count=1)  # torch keeps what it has cast until autocast ends
    twins.step()


def test_copies_and_pickles_go_on_by_themselves(exact):
    twins = Twins(lambda model: optimizers.Adam(0.05))
    twins.step()
    for again in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        others = [again(model) for model in twins.models]
        before = close_to_nothing(twins.models[0])
        found = []
        for model in others:
            fanin.utils.set_random_seed(5)
            found.append([model.train_on_batch(*rows(i, 4)) for i in range(2)])
        assert found[0] == found[1]
        same_bits(*others)
        assert all(torch.equal(one, two) for one, two in zip(before, close_to_nothing(twins.models[0]), strict=True))
        programs(others[0])


def test_autograd_notices_that_a_step_changed_its_weights():
    for optimizer in (optimizers.SGD(0.1), torch.optim.SGD):
        model = simple()
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.train_on_batch(*rows())
        kept = (model.layers[0].kernel ** 2).sum()
        version = model.layers[0].kernel._version
        model.train_on_batch(*rows())
        programs(model)
        assert model.layers[0].kernel._version > version
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            kept.backward()
