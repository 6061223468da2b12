"""Run by another Python, which has Keras and needs not have fanin: writes the corpus, and reads what fanin wrote.

    KERAS_BACKEND=jax python other_keras.py FOLDER

FOLDER/fanin/<name>.keras is read, then trained on; FOLDER/keras/<name>.keras is written after two steps. Predictions
and the losses of two more steps go to an .npz beside each; what fails goes to FOLDER/failures.json.
"""

import json
import sys
import traceback
import warnings
from pathlib import Path

import corpus
import keras
import numpy as np


def record(name, model, path):
    """Predictions, then the numbers of two more steps."""
    predictions = {f"prediction_{place}": array for place, array in enumerate(corpus.predict(name, model))}
    numbers = {f"number_{key}": value for key, value in corpus.train(name, model).items()}
    np.savez(path, iterations=np.asarray(model.optimizer.iterations), **predictions, **numbers)


def main(folder):
    """Both directions for every model."""
    failures = {}
    for name in corpus.CASES:
        keras.utils.clear_session(free_memory=False)
        try:
            model = corpus.build(keras, name)
            corpus.compile_and_train(keras, name, model)
            model.save(folder / "keras" / f"{name}.keras")
            record(name, model, folder / "keras" / f"{name}.npz")
        except Exception:
            failures[f"keras {name}"] = traceback.format_exc()
        try:
            record(name, keras.saving.load_model(folder / "fanin" / f"{name}.keras"), folder / "fanin" / f"{name}.npz")
        except Exception:
            failures[f"fanin {name}"] = traceback.format_exc()
    about = {"version": keras.__version__, "backend": keras.backend.backend(), "failures": failures}
    (folder / "failures.json").write_text(json.dumps(about))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
