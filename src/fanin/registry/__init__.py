"""Names for objects, both ways: identifier -> object, and object <-> plain JSON in Keras's form.

A `Family` is one kind of named things (activations, initializers, ...). It holds a table of names, which is also the
allowlist for files: nothing is ever imported by a name that a file gives. A user's own class or function becomes part
of the tables by `register_keras_serializable`, or for one load by `custom_objects=`. One that is in no table is written
under its own name, as Keras does, and found again by `custom_objects`.

For fanin's own modules: users have these functions in `fanin.saving` and `fanin.utils`.
"""

from fanin.registry.family import Family as Family
from fanin.registry.names import snake_case as snake_case
from fanin.registry.own import custom_object_scope as custom_object_scope
from fanin.registry.own import get_custom_objects as get_custom_objects
from fanin.registry.own import get_registered_name as get_registered_name
from fanin.registry.own import get_registered_object as get_registered_object
from fanin.registry.own import register_keras_serializable as register_keras_serializable
from fanin.registry.reading import deserialize as deserialize
from fanin.registry.reading import find_class as find_class
from fanin.registry.reading import with_objects as with_objects
from fanin.registry.shared import sharing as sharing
from fanin.registry.writing import serialize as serialize
from fanin.registry.writing import serialize_config as serialize_config
