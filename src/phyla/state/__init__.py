"""Live objects <-> trees: what `init` made becomes what a checkpoint holds, and the other way round.

raw = init(member)                                   # may hold Part and Local
made = state.made(raw, hypers)                       # what init set: right away, before anything changes
live = state.unwrap(raw, kept)                       # what the user's loop sees
live, changes = state.load(live, saved, made)        # its own weights, or its donor's
...                                                  # the loop trains
saved = state.save(live, made)                       # refers to live arrays: encode it at once
state.fell_back(live, changes, made)                 # new hyperparameters that did not last
"""

from phyla.state.inspect import identities, seed_globals, unsaved
from phyla.state.load import load
from phyla.state.mix import mix
from phyla.state.options import Changed, Made, carry, fell_back, made
from phyla.state.parts import Local, Part
from phyla.state.reuse import made_for
from phyla.state.save import check, save, saved_state, unwrap

__all__ = [
    "Changed",
    "Local",
    "Made",
    "Part",
    "carry",
    "check",
    "fell_back",
    "identities",
    "load",
    "made",
    "made_for",
    "mix",
    "save",
    "saved_state",
    "seed_globals",
    "unsaved",
    "unwrap",
]
