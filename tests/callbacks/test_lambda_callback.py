"""LambdaCallback calls the same functions with the same arguments as Keras's."""

import keras
import pytest

import fanin
from fanin.callbacks import LambdaCallback
from fanin.callbacks.base import HOOKS


def test_the_calls_are_those_of_keras(data):
    x, y = data
    seen = []
    for library in (keras, fanin):
        calls = []

        def note(hook, calls=calls):
            if hook.startswith(("on_epoch", "on_batch")) or "_batch_" in hook:
                return lambda number, logs: calls.append((hook, number, sorted(logs)))
            return lambda logs: calls.append((hook, sorted(logs)))

        tell = library.callbacks.LambdaCallback(**{hook: note(hook) for hook in HOOKS if "on_batch" not in hook})
        old = library.callbacks.LambdaCallback(on_batch_begin=note("on_batch_begin"), on_batch_end=note("on_batch_end"))
        model = library.Sequential([library.Input((4,)), library.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(x, y, epochs=2, batch_size=5, validation_data=(x, y), callbacks=[tell, old], verbose=0)
        model.evaluate(x, y, callbacks=[tell], verbose=0)
        model.predict(x, callbacks=[tell], verbose=0)
        seen.append(calls)
    assert seen[0] == seen[1]
    assert {hook for hook, *_ in seen[1]} == set(HOOKS)


def test_wrong_hooks():
    with pytest.raises(TypeError, match=r"'on_epoch_ends' is no hook of a callback\. Did you mean 'on_epoch_end'"):
        LambdaCallback(on_epoch_ends=print)
    with pytest.raises(TypeError, match="on_epoch_end must be a function, found 3"):
        LambdaCallback(on_epoch_end=3)
    LambdaCallback(on_epoch_end=None, on_test_end=None)
