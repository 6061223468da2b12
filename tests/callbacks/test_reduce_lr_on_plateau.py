"""ReduceLROnPlateau gives the learning rates that Keras's gives."""

import keras
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fanin
from fanin.callbacks import ReduceLROnPlateau

RATES = [0.1, 0.001, 1.0]


@settings(
    derandomize=True, deadline=None, phases=[Phase.generate], max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    values=st.lists(st.sampled_from([0.0, 0.00005, 0.5, 1.0, 2.0, None]), min_size=1, max_size=20),
    rate=st.sampled_from(RATES),
    arguments=st.fixed_dictionaries(
        {
            "factor": st.sampled_from([0.0, 0.1, 0.5, 0.9]),
            "patience": st.integers(0, 3),
            "mode": st.sampled_from(["min", "max"]),
            "min_delta": st.sampled_from([1e-4, 0.0, 0.3]),
            "cooldown": st.integers(0, 3),
            "min_lr": st.sampled_from([0.0, 0.001, 0.01]),
        }
    ),
)
@pytest.mark.filterwarnings("ignore:.*(which training does not give|which is not available).*:UserWarning")
def test_rates_are_those_of_keras(drive, values, rate, arguments):
    seen = []
    layer = torch.nn.Linear(1, 1)
    optimizers = [
        keras.optimizers.SGD(rate),
        fanin.optimizers.SGD(rate),
        torch.optim.SGD(layer.parameters(), lr=rate),
        torch.optim.SGD(layer.parameters(), lr=torch.tensor(rate)),
    ]
    for library, optimizer in zip((keras, fanin, fanin, fanin), optimizers, strict=True):
        logs = [{"loss": 0.0} if value is None else {"val_loss": value} for value in values]
        one = drive(library.callbacks.ReduceLROnPlateau(**arguments), logs, optimizer=optimizer)
        seen.append(([each["learning_rate"] for each in logs], one.wait, one.cooldown_counter, one.best))
    assert seen[1] == seen[0]  # both keep rates in float32
    for other in seen[2:]:
        assert other[0] == pytest.approx(seen[0][0], rel=2**-20)  # at most 20 products, each rounded to 24 bits
        assert other[1:] == seen[0][1:]


def test_in_fit(model, data):
    made = model()
    shrink = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    history = made.fit(*data, epochs=4, callbacks=shrink, verbose=0)
    assert history.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert made.optimizer.learning_rate == pytest.approx(0.0125)
    made.fit(*data, callbacks=shrink, verbose=0)  # begins anew
    assert shrink.wait == 0


def test_groups_of_a_torch_optimizer(model, data, capsys):
    made = model()
    kernel, bias = made.layers[0].kernel, made.layers[0].bias
    made.compile(torch.optim.SGD([{"params": [kernel], "lr": 0.1}, {"params": [bias], "lr": 0.0005}], lr=1.0), "mse")
    shrink = ReduceLROnPlateau("loss", patience=1, min_delta=1e9, min_lr=0.001, verbose=1)
    logs = made.fit(*data, epochs=4, callbacks=shrink, verbose=0).history
    assert logs["learning_rate_0"] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert logs["learning_rate_1"] == [0.0005] * 4  # already below the smallest
    assert "Epoch 2: learning_rate_0 reduced to 0.01\n" in capsys.readouterr().out


@pytest.mark.parametrize("factor", [1.0, -0.5, float("nan")])
def test_another_factor_is_refused(factor):
    with pytest.raises(ValueError, match="factor must be in"):
        ReduceLROnPlateau(factor=factor)


def test_a_schedule_is_refused_before_training(model, data):
    made = model(optimizer=fanin.optimizers.SGD(lambda step: 0.1))
    weights = made.get_weights()
    with pytest.raises(TypeError, match="comes from a schedule"):
        made.fit(*data, callbacks=ReduceLROnPlateau("loss"), verbose=0)
    assert (made.get_weights()[0] == weights[0]).all()
