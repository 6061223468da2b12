"""A class that fanin lacks: one error that lists all of them, each with its place, in nested models too."""

import json
import zipfile

import pytest

import fanin
from fanin.errors import MismatchError
from fanin.layers import Dense
from fanin.saving import load_model


def with_config(path, change):
    """The archive at `path` with its config changed."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def lacking(name):
    return {"module": "keras.layers", "class_name": name, "config": {}, "registered_name": None}


def test_nested_models_and_all_parts_of_a_config(tmp_path):
    x = fanin.Input((3,))
    inner = fanin.Sequential([Dense(4), fanin.Sequential([Dense(4)], name="deepest")], name="inner")
    model = fanin.Model(x, Dense(2)(inner(x)))
    model.compile("adam", "mse", metrics=["mae"])
    model.save(tmp_path / "m.keras")

    def change(config):
        layers = config["config"]["layers"]
        assert layers[1]["class_name"] == "Sequential"
        inside = layers[1]["config"]["layers"]
        inside[2]["config"]["layers"].append(lacking("Conv9D"))
        inside.append(lacking("Gru"))
        inside[1]["config"]["kernel_initializer"] = lacking("Magic")
        layers.append({**lacking("Warp"), "name": "w", "inbound_nodes": []})
        config["compile_config"]["optimizer"] = lacking("Wonder")
        config["compile_config"]["metrics"] = [lacking("Joy")]

    with_config(tmp_path / "m.keras", change)
    with pytest.raises(MismatchError) as caught:
        load_model(tmp_path / "m.keras")
    for name, place in {
        "Conv9D": "config.config.layers[1].config.layers[2].config.layers[2]",
        "Gru": "config.config.layers[1].config.layers[3]",
        "Magic": "config.config.layers[1].config.layers[1].config.kernel_initializer",
        "Warp": "config.config.layers[3]",
        "Wonder": "compile_config.optimizer",
        "Joy": "compile_config.metrics[0]",
    }.items():
        assert f"'{name}' (module 'keras.layers') at {place}" in str(caught.value), name
    assert "custom_objects" in str(caught.value)
    with pytest.raises(MismatchError, match="Conv9D") as caught:
        load_model(tmp_path / "m.keras", compile=False)
    assert "Wonder" not in str(caught.value)


def test_twenty_are_shown(tmp_path):
    model = fanin.Sequential([fanin.Input((3,)), Dense(4)])
    model.save(tmp_path / "m.keras")
    with_config(tmp_path / "m.keras", lambda c: c["config"]["layers"].extend(lacking(f"L{i}") for i in range(90)))
    with pytest.raises(MismatchError, match=r"'L19' .* and more\.") as caught:
        load_model(tmp_path / "m.keras")
    assert "'L20'" not in str(caught.value)
