"""Random shapes with axes, for the layers that normalize along axes."""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st

EASY = settings(derandomize=True, deadline=None, max_examples=60, phases=[Phase.generate])


@st.composite
def shapes_with_axes(draw):
    """A shape, the argument `axis` (one, a list or a tuple, from the front or the end), the axes from the front."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
    several = draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, unique=True))
    several = [axis - draw(st.sampled_from([0, len(shape)])) for axis in several]
    axis = draw(st.sampled_from([several, tuple(several), several[0]]))
    given = [axis] if isinstance(axis, int) else axis
    return shape, axis, tuple(sorted(one % len(shape) for one in given))
